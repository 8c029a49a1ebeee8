"""The study's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure

from verify.report.curves import curve, legend, panels, strokes
from verify.report.figures import COLOURS, FAINT, INK, MUTED
from verify.studies.ladder.meeting import Meeting
from verify.studies.ladder.tables import Entry

MARKS = "osD^vP*X"


def frontier(groups: Mapping[str, Sequence[Entry]]) -> Figure:
    """Certified bias, from at least to at most, against acceptance; below the frontier no rule can lie."""
    figure, plots = panels(list(groups), 2.9, 3.3)
    names = list(dict.fromkeys(entry.name for group in groups.values() for entry in group))
    kinds = {entry.name: entry.rule.claim.exact for group in groups.values() for entry in group}
    marks = {name: MARKS[place % len(MARKS)] for place, name in enumerate(names)}
    colour = {name: COLOURS["lossless" if kinds[name] else "lossy"] for name in names}
    for plot, group in zip(plots, groups.values(), strict=True):
        for entry in group:
            place, low, high = entry.acceptance[0], entry.least[0], entry.most[0]
            plot.plot([place, place], [low, high], color=colour[entry.name], linewidth=1.2)
            plot.plot([place], [low], marks[entry.name], color=colour[entry.name], markersize=5)
        least, most = next(entry.overlap for entry in group if entry.rule.claim.laws == "path")
        across = torch.linspace(0, 1, 101)
        plot.plot(across, (across - most).clamp(min=0), color=INK, linewidth=1.2)
        plot.plot(across, (across - least).clamp(min=0), color=MUTED, linewidth=1.0, linestyle=":")
        plot.axvspan(least, most, color=FAINT, linewidth=0)
        plot.set(xlim=(-0.03, 1.0), ylim=(-0.03, 1.0), xlabel="acceptance")
    plots[0].set_ylabel("bias of the token (total variation)")
    lines = {name: {"color": colour[name], "linestyle": "", "marker": marks[name]} for name in names}
    dotted = {"color": MUTED, "linestyle": ":", "linewidth": 1.0}
    legend(figure, {**lines, "frontier": {"color": INK}, "frontier if 1 - TV is least": dotted})
    return figure


def walks(found: Mapping[str, Mapping[str, Meeting]]) -> Figure:
    """Who is together at each level of noise, and how far apart the means are, in standard deviations of a step."""
    titles = [f"{data}: {what}" for data in found for what in ("together", "delta, median and quartiles")]
    figure, plots = panels(titles, 3.3, 3.2)
    lines = strokes(list(dict.fromkeys(name for group in found.values() for name in group)), [])
    for place, group in enumerate(found.values()):
        left, right = plots[2 * place : 2 * place + 2]
        for name, walk in group.items():
            level = walk.noise[:-1].tolist()
            level.append(level[-1] / 3)  # the clean level, which a logarithm has no room for
            curve(left, level, [(float(x),) * 3 for x in walk.together[1:]], lines[name])
            low, middle, high = walk.distance.tolist()
            curve(right, level, list(zip(middle, low, high, strict=True)), lines[name])
        for plot in (left, right):
            plot.set_xscale("log")
            plot.invert_xaxis()
            plot.set_xlabel("noise of the level reached")
        right.set_yscale("log")
        left.set_ylim(-0.03, 1.03)
    legend(figure, lines)
    return figure
