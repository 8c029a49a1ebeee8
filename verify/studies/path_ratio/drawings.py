"""The study's figures."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from verify.report.curves import curve, legend, panels, strokes
from verify.studies.path_ratio.cells import ERROR, FIXED, Gap, Swept


def variances(gaussian: Swept, line: Swept) -> Figure:
    """TV of paths and of ends against the number of steps, by the kernels' variance: two data laws of either kind."""
    figure, plots = panels(["Gaussian data, closed form", "mixture on the line, sampled"], 4.4, 3.4)
    lines = strokes(list(gaussian), [])
    for plot, found in zip(plots, (gaussian, line), strict=True):
        for name, gaps in found.items():
            curve(plot, list(gaps), [gap.paths for gap in gaps.values()], lines[name])
            _ends(plot, gaps, lines[name])
        plot.set_xscale("log")
        plot.set_xlabel("steps T")
        plot.set_ylim(0, 1)
    plots[0].set_ylabel("total variation")
    legend(figure, lines)
    return figure


def errors(by_error: Swept, by_steps: Swept) -> Figure:
    """TV of paths and of ends against the error of the drafter, and against the number of steps."""
    figure, plots = panels([f"{FIXED} steps", f"error {ERROR}"], 4.4, 3.4)
    lines = strokes(list(by_error), [])
    for plot, found in zip(plots, (by_error, by_steps), strict=True):
        for name, gaps in found.items():
            curve(plot, list(gaps), [gap.paths for gap in gaps.values()], lines[name])
            _ends(plot, gaps, lines[name])
        plot.set_ylim(0, 1)
    plots[0].set_xlabel("error")
    plots[1].set_xscale("log")
    plots[1].set_xlabel("steps T")
    plots[0].set_ylabel("total variation")
    legend(figure, lines)
    return figure


def _ends(plot: object, gaps: Mapping[float, Gap], stroke: Mapping[str, object]) -> None:
    plot.plot(  # type: ignore[attr-defined]
        list(gaps), [gap.end for gap in gaps.values()], color=str(stroke["color"]), linestyle=":", linewidth=1.3
    )
