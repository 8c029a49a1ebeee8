"""Small multiples of curves with bands, in the page's colours: what the studies draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from verify.report.figures import COLOURS, FAINT, INK, MUTED

# Mid-tones that are readable on white and on black.
PALETTE = ("#d08a1d", "#2f80d0", "#2e9e8f", "#9068c8", "#b05c8a", "#7f8c3a", "#6b7280", "#8a6d3b")
BROKEN = COLOURS["lossy"]
DASHES = ("--", ":", "-.", (0, (1, 2, 4, 2)), (0, (6, 2)), (0, (3, 1, 1, 1, 1, 1)))


def strokes(exact: Sequence[str], lossy: Sequence[str]) -> dict[str, dict[str, object]]:
    """A line style for each name: full lines of different colours for the exact, broken red ones for the lossy."""
    found: dict[str, dict[str, object]] = {
        name: {"color": PALETTE[place % len(PALETTE)], "linestyle": "-"} for place, name in enumerate(exact)
    }
    return found | {
        name: {"color": BROKEN, "linestyle": DASHES[place % len(DASHES)]} for place, name in enumerate(lossy)
    }


def panels(titles: Sequence[str], width: float = 2.3, height: float = 2.7) -> tuple[Figure, list[Axes]]:
    """A row of plots side by side, one for each title."""
    figure = Figure((width * len(titles), height), layout="constrained")
    axes = [figure.add_subplot(1, len(titles), place + 1) for place in range(len(titles))]
    for plot, title in zip(axes, titles, strict=True):
        plot.set_title(title, fontsize=9.5, color=INK, loc="left")
        plot.spines[["top", "right"]].set_visible(False)
        plot.spines[["left", "bottom"]].set_color(MUTED)
        plot.tick_params(colors=MUTED, labelcolor=INK, labelsize=8.5)
        plot.xaxis.label.set(color=INK, fontsize=9)
        plot.yaxis.label.set(color=INK, fontsize=9)
        plot.grid(axis="y", color=FAINT, linewidth=0.8)
    return figure, axes


def curve(
    plot: Axes, place: Sequence[float], value: Sequence[tuple[float, float, float]], stroke: Mapping[str, object]
) -> None:
    """A line through (middle, low, high) at each place, with the band between low and high."""
    middle, low, high = zip(*value, strict=True)
    plot.fill_between(place, low, high, color=str(stroke["color"]), alpha=0.18, linewidth=0)
    plot.plot(place, middle, marker="o", markersize=3, linewidth=1.6, **dict(stroke))  # type: ignore[arg-type]


def doubling(plot: Axes, windows: Sequence[int], ticks: Sequence[int] = ()) -> None:
    """Axes in powers of two: across, the windows; up, ``ticks`` where there are any."""
    plot.set_xscale("log", base=2)
    plot.xaxis.set(major_locator=FixedLocator(windows), minor_locator=NullLocator())
    plot.set_xticks(windows, [str(window) for window in windows])
    if ticks:
        plot.set_yscale("log", base=2)
        plot.set_yticks(ticks, [str(tick) for tick in ticks])
        plot.yaxis.set(minor_locator=NullLocator(), minor_formatter=NullFormatter())


def legend(figure: Figure, strokes: Mapping[str, Mapping[str, object]], names: Mapping[str, str] | None = None) -> None:
    """One legend above all panels."""
    lines = [Line2D([], [], **{"linewidth": 1.8, **dict(stroke)}) for stroke in strokes.values()]  # type: ignore[arg-type]
    labels = [(names or {}).get(name, name) for name in strokes]
    figure.legend(lines, labels, loc="outside upper left", ncols=5, frameon=False, labelcolor=INK, fontsize=9)


def ends(plot: Axes, place: float, labels: Mapping[str, float]) -> None:
    """Names beside the right ends of curves, moved apart where they would meet."""
    low, high = plot.get_ylim()
    room, height = 0.075 * (high - low), -float("inf")
    for name, end in sorted(labels.items(), key=lambda item: item[1]):
        height = max(end, height + room)
        plot.annotate(
            name, (place, height), (5, 0), textcoords="offset points", fontsize=8, color=MUTED, va="center",
            annotation_clip=False,
        )  # fmt: skip
