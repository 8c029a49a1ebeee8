"""The study's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from distributions.path import VARIANCES
from verify.estimates import Estimate
from verify.report.curves import curve, legend, panels, strokes
from verify.report.figures import FAINT, MUTED
from verify.studies.sampler_definitions.cells import RULES, STARTS, STEPS, Cell
from verify.studies.sampler_definitions.choice import of


def trade(cells: Sequence[Cell], floors: Mapping[str, Estimate]) -> Figure:
    """Acceptance against distance to the data, one line a variance through the numbers of steps, one step in."""
    figure, plots = panels([f"{data}, {rule}" for data in floors for rule in RULES], 2.9, 3.2)
    lines = strokes(list(VARIANCES), [])
    for place, plot in enumerate(plots):
        data, rule = list(floors)[place // len(RULES)], RULES[place % len(RULES)]
        for name, stroke in lines.items():
            mine = _line(cells, data, name, STARTS[1])
            values = [(x.accepted[rule][0], *_ends(x.accepted[rule])) for x in mine]
            curve(plot, [x.distance[0] for x in mine], values, stroke)
            for cell in mine:
                plot.annotate(
                    str(cell.definition.steps), (cell.distance[0], cell.accepted[rule][0]), (3, 3),
                    textcoords="offset points", fontsize=7, color=MUTED,
                )  # fmt: skip
        _floor(plot, floors[data], across=False)
        plot.set_xlabel("distance to the data")
    plots[0].set_ylabel("acceptance")
    legend(figure, lines)
    return figure


def quality(cells: Sequence[Cell], floors: Mapping[str, Estimate]) -> Figure:
    """Distance to the data against the number of steps; dotted from full noise."""
    names = list(dict.fromkeys(cell.data for cell in cells))
    figure, plots = panels(names, 3.4, 3.2)
    lines = strokes(list(VARIANCES), [])
    for plot, data in zip(plots, names, strict=True):
        for name, stroke in lines.items():
            for start, style in zip(STARTS, (":", "-"), strict=True):
                mine = _line(cells, data, name, start)
                if mine:
                    values = [(x.distance[0], *_ends(x.distance)) for x in mine]
                    curve(plot, [x.definition.steps for x in mine], values, {**stroke, "linestyle": style})
        _floor(plot, floors[data.split(",")[0]], across=True)
        plot.set_xscale("log")
        plot.set_yscale("log")
        plot.set_xticks(STEPS, [str(step) for step in STEPS])
        plot.minorticks_off()
        plot.set_xlabel("steps")
    plots[0].set_ylabel("distance to the data")
    legend(figure, lines)
    return figure


def _line(cells: Sequence[Cell], data: str, variance: str, start: str) -> list[Cell]:
    return [
        cell
        for cell in of(cells, data)
        if (cell.definition.variance, cell.definition.start) == (variance, start) and cell.definition.last_noise
    ]


def _ends(value: Estimate) -> tuple[float, float]:
    return value[0] - 1.96 * value[1], value[0] + 1.96 * value[1]


def _floor(plot: object, floor: Estimate, across: bool) -> None:
    low, high = _ends(floor)
    span = plot.axhspan if across else plot.axvspan  # type: ignore[attr-defined]
    span(max(low, 1e-6), high, color=FAINT, linewidth=0)
