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

from verify.records import Verdict
from verify.report.svg import COLOURS as COLOURS
from verify.report.svg import FAINT as FAINT
from verify.report.svg import INK as INK
from verify.report.svg import MUTED as MUTED
from verify.report.svg import THEME, themed

MARKERS = {"lossless": "o", "lossy": "D", "inconclusive": "s"}
TOLERANCE = 1e-12  # an enumerated bias above it is one


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
        figure, axes = _axes(6.4, 3.8)
        axes.fill_between([0, right], [0, right], 0, color=FAINT, linewidth=0)
        axes.plot([left, 0, right], [0, 0, right], color=MUTED, linewidth=1)
        axes.text(right * 0.97, right * 0.06, "impossible", ha="right", va="bottom", color=MUTED, fontsize=8.5)
        taken: list[tuple[float, float]] = []
        for number, verdict, excess in points:
            colour, middle = COLOURS[verdict.status], _middle(verdict)
            if verdict.evidence != "exact" and verdict.bias_upper < 1:
                axes.plot([excess, excess], [verdict.bias_lower, verdict.bias_upper], color=colour, linewidth=1)
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


def gap_figure(verdicts: Sequence[Verdict]) -> str | None:
    """The bias of every enumerated verdict on one logarithmic line: rounding on the left, defects on the right.

    None where fewer than two verdicts rest on enumeration. What is below 1e-17 is drawn there.
    """
    exact = [verdict for verdict in verdicts if verdict.evidence == "exact" and math.isfinite(verdict.bias_upper)]
    if len(exact) < 2:
        return None
    with _style():
        figure, axes = _axes(6.2, 1.75)
        for row, status in enumerate(("lossless", "lossy", "inconclusive")):
            found = [max(verdict.bias_upper, 1e-17) for verdict in exact if verdict.status == status]
            if found:
                # Points of a row are spread in height, so that those of nearly equal bias can be told apart.
                height = [-row + 0.28 * math.sin(2.4 * place) for place in range(len(found))]
                axes.plot(
                    found, height, MARKERS[status], color=COLOURS[status], markersize=6, alpha=0.65, markeredgewidth=0
                )
        axes.axvline(TOLERANCE, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(TOLERANCE * 1.8, 0.36, "what counts as zero", color=MUTED, fontsize=8.5, va="center")
        shown = [status for status in MARKERS if any(verdict.status == status for verdict in exact)]
        rows = [-list(MARKERS).index(status) for status in shown]
        axes.set_yticks(rows, shown)
        axes.set(xscale="log", xlim=(5e-18, 2.0), ylim=(min(rows) - 0.55, 0.55))
        axes.set_xlabel("bias: total variation from the target's law")
        return drawing(figure, "gap", "The bias of every enumerated verdict.")


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
        # A legend that is wider than the figure makes it wider, in place of being cut off.
        figure.savefig(page, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
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
    return themed("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def _font(family: str | None, size: str | None) -> str:
    fonts = "system-ui, sans-serif"
    return f"font-family: {fonts}" if family else f"font: {size} {fonts}"
