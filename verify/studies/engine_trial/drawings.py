"""The figures of the trial: calibration with its band, power against rows, and rows by level of evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from verify.report.curves import BROKEN, PALETTE, legend, panels
from verify.report.figures import INK, MUTED
from verify.studies.engine_trial.calibration import GRID, Measured, exposed, limit
from verify.studies.engine_trial.ladder import ALL, needed
from verify.studies.engine_trial.powers import LEVELS, Curves, Mutated

KINDS = ("known law", "e-process", "trace", "two samples")


def calibration(found: Sequence[Measured]) -> Figure:
    """P(p <= t) of every check against t, one panel a level of evidence; what leaves the band is red."""
    many = sum(len(item.p_values) for item in found)
    kinds = [kind for kind in KINDS if any(item.null.name.startswith(kind) for item in found)]
    kinds = kinds or [item.null.name for item in found]
    figure, axes = panels(kinds, width=2.4, height=3.0)
    levels = np.array(GRID)
    for plot, kind in zip(axes, kinds, strict=True):
        mine = [item for item in found if item.null.name.startswith(kind)]
        suites = max(item.suites for item in mine)
        band = np.array([limit(suites, level, many) / suites for level in GRID])
        plot.fill_between(levels, band, 1e-6, color=MUTED, alpha=0.15, linewidth=0)
        plot.plot(levels, levels, color=MUTED, linewidth=1, linestyle="--")
        for item in mine:
            for name, values in item.p_values.items():
                rate = np.array([(values <= level).mean() for level in GRID])
                bad = bool(exposed(values, many))
                colour = BROKEN if bad else PALETTE[1]
                shown = np.where(rate > 0, rate, np.nan)
                plot.plot(
                    levels, shown, color=colour, linewidth=1.6 if bad or name == ALL else 0.8, alpha=1 if bad else 0.55
                )
        plot.set(xscale="log", yscale="log", xlim=(GRID[-1], 1), ylim=(0.3 / suites, 1.3), xlabel="level t")
    axes[0].set_ylabel("share of exact suites with p ≤ t")
    return figure


def power(found: Mapping[str, Mapping[str, Curves]], sizes: Mapping[str, Sequence[int]], best: int = 4) -> Figure:
    """Power against rows, one panel an alternative: full lines against the law, broken ones between two samples.

    Of each level the ``best`` checks, those that need the fewest rows for one of the alternatives.
    """
    figure, axes = panels(list(found), width=3.1, height=3.3)
    strokes: dict[str, dict[str, object]] = {}
    for level, dash in (("known law", "-"), ("two samples", "--")):
        chosen = [name for name in _leaders({case: cells[level] for case, cells in found.items()}, sizes, best)]
        for place, name in enumerate(chosen):
            strokes[f"{name} · {level}"] = {"color": PALETTE[place % len(PALETTE)], "linestyle": dash}
    for plot, (case, cells) in zip(axes, found.items(), strict=True):
        for label, stroke in strokes.items():
            name, level = label.split(" · ")
            if name in cells[level]:
                line = cells[level][name]
                plot.plot(sizes[case], line, marker="o", markersize=2.5, linewidth=1.5, **stroke)  # type: ignore[arg-type]
        plot.set(xscale="log", ylim=(-0.03, 1.03), xlabel="rows")
        plot.axhline(0.9, color=MUTED, linewidth=0.6)
    axes[0].set_ylabel("power at level 0.001")
    legend(figure, strokes)
    return figure


def _leaders(found: Mapping[str, Curves], sizes: Mapping[str, Sequence[int]], best: int) -> list[str]:
    names = list(dict.fromkeys(name for checks in found.values() for name in checks if name != ALL))

    def rank(name: str) -> tuple[float, float]:
        rows = [needed(sizes[case], checks[name]) or np.inf for case, checks in found.items() if name in checks]
        mean = [float(np.mean(checks[name])) for checks in found.values() if name in checks]
        return min(row / sizes[case][-1] for row, case in zip(rows, found, strict=False)), -sum(mean)

    leading = {
        min((name for name in checks if name != ALL), key=lambda name: -float(np.sum(checks[name])))
        for checks in found.values()
    }
    rest = sorted((name for name in names if name not in leading), key=rank)
    return [*sorted(leading), *rest][:best]


def evidence(found: Mapping[str, Mutated], most: Mapping[str, int]) -> Figure:
    """Rows for power 0.9 of every wrong rule, from the strongest evidence to the weakest: hollow, more than that."""
    names = [name for name in found if name != "exact"]
    figure, (plot,) = panels(["rows until nine runs in ten are seen"], width=7.6, height=0.9 + 0.42 * len(names))
    strokes: dict[str, dict[str, object]] = {
        level: {"color": PALETTE[k], "marker": "o"} for k, level in enumerate(LEVELS)
    }
    for height, name in enumerate(reversed(names)):
        for place, level in enumerate(LEVELS):
            if level not in found[name].rows:
                continue
            rows = found[name].rows[level]
            at = height + 0.28 - 0.14 * place
            if rows is None:
                plot.plot(
                    most[level], at, marker=">", markersize=6, color=PALETTE[place], fillstyle="none", clip_on=False
                )
            else:
                plot.plot(rows, at, marker="o", markersize=6, color=PALETTE[place])
    labels = [f"{name}\nTV {found[name].exact.tv:.2g}" for name in reversed(names)]
    plot.set_yticks(range(len(names)), labels, fontsize=8.5, color=INK)
    plot.set(xscale="log", ylim=(-0.6, len(names) - 0.4))
    plot.grid(axis="x", color=MUTED, alpha=0.3, linewidth=0.6)
    legend(figure, {level: {**stroke, "linestyle": ""} for level, stroke in strokes.items()})
    return figure
