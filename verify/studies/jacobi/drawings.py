"""The study's figures."""

from __future__ import annotations

from matplotlib.figure import Figure
from scipy.stats import norm

from verify.report.curves import curve, doubling, ends, legend, panels, strokes
from verify.report.figures import FAINT, MUTED
from verify.studies.jacobi.cells import SWEPT, WINDOWS, Cells, Swept, exact, names, of, planted


def _strokes(cells: Cells) -> dict[str, dict[str, object]]:
    return strokes(exact(cells), [name for name in names(cells) if planted(name)])


def _titles(cells: Cells) -> list[str]:
    return [f"{name}\n{works[0].entropy:.2f} nats a token" for name, works in cells.items()]


def speedups(cells: Cells) -> Figure:
    """Speed-up against window, a panel for each model."""
    figure, plots = panels(_titles(cells))
    top = max(work.speedup[2] for works in cells.values() for work in works)
    ticks = [tick for tick in (1, 2, 4, 8, 16, 32) if tick < 2 * top]
    for plot, works in zip(plots, cells.values(), strict=True):
        for name, stroke in _strokes(cells).items():
            curve(plot, [x.window for x in of(works, name)], [x.speedup for x in of(works, name)], stroke)
        doubling(plot, WINDOWS, ticks)
        plot.set_ylim(0.9, 1.15 * top)
        plot.axhline(1, color=MUTED, linewidth=1)
        plot.set_xlabel("window")
    plots[0].set_ylabel("target evaluations saved, ×")
    legend(figure, _strokes(cells))
    return figure


def scale(cells: Cells) -> Figure:
    """Excess nats a token against window, a panel for each model."""
    figure, plots = panels(_titles(cells))
    room = 1.1 * max(abs(work.nats) + 2 * work.sigma for works in cells.values() for work in works)
    for plot, works in zip(plots, cells.values(), strict=True):
        width = float(norm.isf(0.025)) * works[0].sigma
        plot.axhspan(-width, width, color=FAINT, linewidth=0)
        plot.axhline(0, color=MUTED, linewidth=1)
        for name, stroke in _strokes(cells).items():
            curve(plot, [x.window for x in of(works, name)], [(x.nats,) * 3 for x in of(works, name)], stroke)
        doubling(plot, WINDOWS)
        plot.set_ylim(-room, room)
        plot.set_xlabel("window")
    plots[0].set_ylabel("−log p − H(p), nats a token")
    legend(figure, _strokes(cells))
    return figure


def sweeps(swept: Swept, strength: Swept, cells: Cells) -> Figure:
    """Speed-up of the trained model against each setting, and of every model against the strength of its coupling."""
    figure, plots = panels([*(f"digits, {name.replace('_', '-')}" for name in swept), "scd, strength"], 2.6)
    every = [work.speedup for found in swept.values() for _, work in found]
    rules = {work.rule for found in swept.values() for _, work in found}
    mine = {name: stroke for name, stroke in _strokes(cells).items() if name in rules}
    for plot, (name, found) in zip(plots[:-1], swept.items(), strict=True):
        for rule, stroke in mine.items():
            points = [(value, work.speedup) for value, work in found if work.rule == rule]
            curve(plot, [value for value, _ in points], [speedup for _, speedup in points], stroke)
        plot.set_xlabel(name.replace("_", "-"))
        plot.set_ylim(min(low for _, low, _ in every) - 0.1, max(high for _, _, high in every) + 0.1)
    for found in strength.values():
        grey = {"color": MUTED, "linestyle": "-"}
        curve(plots[-1], [value for value, _ in found], [work.speedup for _, work in found], grey)
    labels = {name.split(", ")[-1].split()[-1]: found[-1][1].speedup[0] for name, found in strength.items()}
    ends(plots[-1], 1.0, labels)
    plots[-1].set_xlabel("strength of the coupling")
    plots[0].set_ylabel(f"speed-up at window {SWEPT}")
    legend(figure, mine)
    return figure
