"""The figures: siblings against their cap, and how often a residual is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure

from verify.gaussian.normals import gaussian_sibling_cap
from verify.report.curves import legend, panels, strokes
from verify.report.figures import INK, MUTED
from verify.studies.gaussian_rules.subjects import Found, Subject

CAP = {"color": INK, "linestyle": "--"}


def siblings(known: Sequence[Subject], counts: Sequence[int] = (2, 4, 8)) -> Figure:
    """Closed-form acceptance over the distance, a panel for each number of siblings, with the cap."""
    rules: dict[str, Any] = {i.name: i.rule for i in known if i.siblings and hasattr(i.rule, "acceptance")}
    distance = torch.linspace(0.02, 6, 120, dtype=torch.float64)
    figure, plots = panels([f"K = {count}" for count in counts], width=3.1, height=3.3)
    lines = strokes(list(rules), [])
    for count, plot in zip(counts, plots, strict=True):
        for name, rule in rules.items():
            value = rule.acceptance(distance, count)
            plot.plot(distance, value, linewidth=1.8, **lines[name])  # type: ignore[arg-type]
        plot.plot(distance, gaussian_sibling_cap(distance, count), linewidth=1.2, **CAP)  # type: ignore[arg-type]
        single = gaussian_sibling_cap(distance, 1)
        plot.plot(distance, single, color=MUTED, linestyle=":", linewidth=1.2)
        plot.set_xlabel("distance of the means, in sigma")
    plots[0].set_ylabel("acceptance")
    legend(figure, lines | {"cap": CAP, "one draft": {"color": MUTED, "linestyle": ":"}})
    return figure


def tails(found: Sequence[Found], distances: Sequence[float]) -> Figure:
    """P(more than n draws at a residual), measured, a panel for each distance; a thin line is (1 - k)^n r."""
    figure, plots = panels([f"means {distance:g} sigma apart" for distance in distances], width=3.1, height=3.3)
    chains = [item for item in found if not item.subject.siblings and item.subject.drafts == 1]
    names = sorted({item.subject.name for item in chains})
    lines = strokes([name for name in names if _exact(chains, name)], [n for n in names if not _exact(chains, n)])
    for distance, plot in zip(distances, plots, strict=True):
        for item in chains:
            if item.distance != distance:
                continue
            most = int(item.work.max())
            places = sorted({round(1.25**power) - 1 for power in range(60)} & set(range(most + 1)))
            share = [float((item.work > place).double().mean()) for place in places]
            shown = [(place + 1, part) for place, part in zip(places, share, strict=True) if part > 0]
            if shown:
                plot.plot(*zip(*shown, strict=True), marker=".", markersize=4, **lines[item.subject.name])  # type: ignore[arg-type]
            if item.line is not None and item.line.how == "thinned" and shown:
                law = [(1 - item.line.kept) * (1 - item.line.taken) ** (place - 1) for place, _ in shown]
                plot.plot([place for place, _ in shown], law, color=MUTED, linewidth=0.8)
        plot.set(xscale="log", yscale="log", xlabel="draws n")
    plots[0].set_ylabel("share of rounds with n draws or more")
    legend(figure, lines)
    return figure


def _exact(found: Sequence[Found], name: str) -> bool:
    return next(item for item in found if item.subject.name == name).subject.rule.claim.exact
