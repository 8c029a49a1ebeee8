"""The study's figures."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from verify.estimates import Estimate
from verify.report.curves import curve, doubling, legend, panels, strokes
from verify.studies.ablations import published
from verify.studies.ablations.cells import Cell, Setting
from verify.studies.ablations.rules import BESIDE, SWEPT
from verify.studies.ablations.tables import NODES, PLACES, SHARES, along, at

LOSSY = ["released", "published"]
EXACT = [name for name in SWEPT if name not in LOSSY]
PAPER = "MAR, published"


def lengths(cells: Sequence[Cell], start: Setting) -> Figure:
    """Tests passed, and drafts kept, against the draft length."""
    figure, plots = panels(["tests passed", "kept of drafted"], width=4.4, height=3.3)
    lines = strokes(EXACT, [*LOSSY, *BESIDE])
    for rule, stroke in lines.items():
        found = along(cells, rule, start, "nodes")
        for plot, values in zip(plots, ([c.token for _, c in found], [c.alpha for _, c in found]), strict=True):
            curve(plot, [place for place, _ in found], [band(value) for value in values], stroke)
    theirs = [sorted(published.alphas(3, "aligned", nodes).values()) for nodes in NODES]
    paper = {"color": "#6b7280", "linestyle": "-"}
    curve(plots[1], NODES, [(sum(each) / len(each), each[0], each[-1]) for each in theirs], paper)
    for plot in plots:
        doubling(plot, NODES)
        plot.set_ylim(bottom=0)
        plot.set_xlabel("draft length")
    legend(figure, {**lines, PAPER: paper})
    return figure


def sequence(cells: Sequence[Cell], start: Setting) -> Figure:
    """Tests passed along the sequence, and by the share that the target made."""
    figure, plots = panels(["by place in the sequence", "by pre-filled share"], width=4.4, height=3.3)
    lines = strokes(EXACT, LOSSY)
    middle = [(place + 0.5) * start.length / PLACES for place in range(PLACES)]
    for rule, stroke in lines.items():
        cell = at(cells, rule, start)
        if cell:
            curve(plots[0], middle, [band(value) for value in cell.by_place(PLACES)], stroke)
        found = along(cells, rule, start, "prefilled")
        curve(plots[1], [100 * place for place, _ in found], [band(c.token) for _, c in found], stroke)
    theirs = [sorted(published.alphas(4, f"pre-filled {100 * x:g} %", start.nodes).values()) for x in SHARES]
    paper = {"color": "#6b7280", "linestyle": "-"}
    if all(theirs):
        curve(plots[1], [100 * x for x in SHARES], [(sum(e) / len(e), e[0], e[-1]) for e in theirs], paper)
    for plot, label in zip(plots, ("token", "pre-filled, %"), strict=True):
        plot.set_ylim(bottom=0)
        plot.set_xlabel(label)
    plots[0].set_ylabel("tests passed")
    legend(figure, {**lines, PAPER: paper})
    return figure


def knobs(cells: Sequence[Cell], start: Setting) -> Figure:
    """Tests passed against temperature and guidance."""
    names = ["temperature", "guidance"]
    figure, plots = panels([f"by {name}" for name in names], width=4.4, height=3.3)
    lines = strokes(EXACT, LOSSY)
    for plot, name in zip(plots, names, strict=True):
        for rule, stroke in lines.items():
            found = along(cells, rule, start, name)
            curve(plot, [place for place, _ in found], [band(cell.token) for _, cell in found], stroke)
        plot.set_ylim(bottom=0)
        plot.set_xlabel(name)
    plots[0].set_ylabel("tests passed")
    legend(figure, lines)
    return figure


def band(value: Estimate) -> tuple[float, float, float]:
    """A mean and its 95 % interval."""
    return value[0], value[0] - 1.96 * value[1], value[0] + 1.96 * value[1]
