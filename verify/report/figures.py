"""The report's figures: SVG text whose colours are the page's, so that one drawing suits light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from verify.records import Counterexample, Verdict

# Each is drawn in a colour that nothing else uses, then replaced by the page's variable (with a fallback that is
# readable on white and on black, for a figure that is opened by itself).
INK, MUTED, FAINT = "#010101", "#020202", "#030303"
COLOURS = {"lossless": "#040404", "lossy": "#050505", "inconclusive": "#060606"}
THEME = {
    INK: "var(--ink, #808080)",
    MUTED: "var(--muted, #808080)",
    FAINT: "var(--faint, #80808040)",
    COLOURS["lossless"]: "var(--good, #2e9e5b)",
    COLOURS["lossy"]: "var(--bad, #dd4a48)",
    COLOURS["inconclusive"]: "var(--unsure, #c98a1b)",
}
MARKERS = {"lossless": "o", "lossy": "D", "inconclusive": "s"}
MOST_OUTCOMES = 12


def excess_figure(verdicts: Sequence[Verdict]) -> str | None:
    """Bias against acceptance minus overlap, each lossy point numbered by its place (from 1) among the verdicts.

    TV(out, p) >= acceptance - (1 - TV(p, q)) for every single-draft rule: no point can lie below the line bias =
    excess. None where no verdict has an acceptance, an overlap and a bias in total variation.
    """
    points = [
        (number, verdict, verdict.acceptance - verdict.overlap)
        for number, verdict in enumerate(verdicts, 1)
        if verdict.acceptance is not None
        and verdict.overlap is not None
        and verdict.metric.split()[0] in {"tv", "total"}
        and math.isfinite(verdict.bias_lower)
    ]
    if not points:
        return None
    left = min(-0.05, *(1.15 * excess for _, _, excess in points))
    right = max(0.1, *(1.15 * excess for _, _, excess in points))
    high = max(0.1, right, *(1.15 * _middle(verdict) for _, verdict, _ in points))
    with _style():
        figure, axes = _axes(4.9, 3.3)
        axes.fill_between([0, right], [0, right], 0, color=FAINT, linewidth=0)
        axes.plot([left, 0, right], [0, 0, right], color=MUTED, linewidth=1)
        axes.text(right * 0.97, right * 0.06, "impossible", ha="right", va="bottom", color=MUTED, fontsize=8.5)
        taken: list[tuple[float, float]] = []
        for number, verdict, excess in points:
            colour, middle = COLOURS[verdict.status], _middle(verdict)
            if verdict.evidence != "exact":
                top = min(verdict.bias_upper, high) if math.isfinite(verdict.bias_upper) else high
                axes.plot([excess, excess], [verdict.bias_lower, top], color=colour, linewidth=1)
            (mark,) = axes.plot(
                [excess], [middle], MARKERS[verdict.status], color=colour, markersize=6, alpha=0.8, markeredgewidth=0
            )
            mark.set_gid(f"point-{number}")
            spot = (excess / (right - left), middle / high)
            if verdict.status == "lossy" and all(math.dist(spot, other) > 0.045 for other in taken):
                taken.append(spot)
                axes.annotate(
                    str(number), (excess, middle), (4, 3), textcoords="offset points", color=INK, fontsize=8.5
                )
        axes.set(xlim=(left, right), ylim=(-0.03 * high, high))
        axes.set_xlabel("acceptance − overlap")
        axes.set_ylabel("bias (total variation)")
        titles = {f"point-{number}": f"{number}. {verdict.subject}: {verdict.status}" for number, verdict, _ in points}
        return drawing(figure, "excess", "Bias against acceptance minus overlap.", titles)


def law_figure(case: Counterexample, name: str) -> str | None:
    """The law found beside the law wanted, outcome by outcome; the dozen that differ most where there are more."""
    outcomes = list(dict.fromkeys([*case.wanted, *case.found]))
    if not outcomes:
        return None
    gap = {item: abs(case.found.get(item, 0.0) - case.wanted.get(item, 0.0)) for item in outcomes}
    shown = set(sorted(outcomes, key=lambda item: -gap[item])[:MOST_OUTCOMES])
    rows = [item for item in outcomes if item in shown]
    with _style():
        figure, axes = _axes(4.9, 0.75 + 0.36 * len(rows))
        place = range(len(rows))
        wanted = [case.wanted.get(item, 0.0) for item in rows]
        found = [case.found.get(item, 0.0) for item in rows]
        axes.barh([at - 0.19 for at in place], wanted, 0.36, color=MUTED, label="wanted", linewidth=0)
        axes.barh([at + 0.19 for at in place], found, 0.36, color=COLOURS["lossy"], label="found", linewidth=0)
        room = max([*wanted, *found, 1e-9])
        for at, item in enumerate(rows):
            difference = case.found.get(item, 0.0) - case.wanted.get(item, 0.0)
            axes.text(
                max(wanted[at], found[at]) + 0.02 * room, at, f"{difference:+.3g}".replace("-", "−"),
                va="center", color=INK, fontsize=8.5,
            )  # fmt: skip
        axes.set_yticks(list(place), [item if len(item) < 28 else item[:27] + "…" for item in rows], parse_math=False)
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1.2 * room))
        hidden = len(outcomes) - len(rows)
        axes.set_xlabel(f"probability ({hidden} more outcomes not shown)" if hidden else "probability")
        return drawing(figure, name, "The law found beside the law wanted.", {})


def _middle(verdict: Verdict) -> float:
    """Where a verdict's point is drawn: the bias itself, or the bound that made the verdict what it is."""
    below = verdict.status == "lossy" or not math.isfinite(verdict.bias_upper)
    return verdict.bias_lower if below else verdict.bias_upper


def _style() -> AbstractContextManager[None]:
    return matplotlib.rc_context({"svg.fonttype": "none", "font.size": 9.5, "axes.unicode_minus": True})


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure((width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def drawing(figure: Figure, name: str, label: str, titles: Mapping[str, str] | None = None) -> str:
    """The drawing as an ``<svg>`` element: no date, no metadata, ids of its own, the page's colours and fonts."""
    page = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(page, format="svg", transparent=True, metadata={"Date": None})
    text = page.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"font(-family)?: (?:([\d.]+px) )?'[^;\"]*", lambda m: _font(m[1], m[2]), text)
    for colour, variable in THEME.items():
        text = text.replace(colour, variable)
    for group, title in (titles or {}).items():
        text = text.replace(f'<g id="{group}">', f'<g id="{group}"><title>{escape(title)}</title>')
    # Several drawings share one page: their ids must not meet.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"<svg ", f'<svg role="img" aria-label="{escape(label, quote=True)}" ', text, count=1)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _font(family: str | None, size: str | None) -> str:
    fonts = "system-ui, sans-serif"
    return f"font-family: {fonts}" if family else f"font: {size} {fonts}"
