"""The study's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist

import torch
from matplotlib.figure import Figure
from torch import Tensor

from distributions.images import Images
from verify.imaging.run import Decoded
from verify.report.curves import curve, doubling, legend, panels, strokes
from verify.report.figures import INK
from verify.studies.images.evidence import Known
from verify.studies.images.speed import Speed
from verify.studies.images.windows import Window


def bias(cells: Sequence[Known]) -> Figure:
    """By draft length: how far paths are from the target's, and what chance reaches."""
    known = [cell for cell in cells if cell.job.verifier and cell.job.drafter == "small" and cell.job.prefill == 0]
    models = list(dict.fromkeys(cell.subject for cell in known if not cell.job.exact))
    figure, plots = panels(models, 3.4, 3.0)
    names = list(dict.fromkeys(cell.job.rule for cell in known))
    lines = strokes(
        [name for name in names if any(c.job.exact for c in known if c.job.rule == name)],
        [name for name in names if not any(c.job.exact for c in known if c.job.rule == name)],
    )
    for plot, model in zip(plots, models, strict=True):
        lengths: set[int] = set()
        for name in names:
            found = {c.job.draft_length: c.gap for c in known if (c.subject, c.job.rule) == (model, name)}
            if not found:
                continue
            lengths |= set(found)
            curve(
                plot, sorted(found), [(found[n].found, found[n].least, found[n].most) for n in sorted(found)],
                lines[name],
            )  # fmt: skip
        plot.axhline(next(c.gap.room for c in known if c.subject == model), color=INK, linewidth=0.8, linestyle=":")
        doubling(plot, sorted(lengths))
        plot.set(xlabel="draft length", ylim=(0, 1))
    plots[0].set_ylabel("Kolmogorov distance")
    legend(figure, lines)
    return figure


def saved(cells: Sequence[Window]) -> Figure:
    """By window: how many times fewer evaluations than the target alone."""
    models = list(dict.fromkeys(cell.model for cell in cells))
    figure, plots = panels(models, 3.4, 3.0)
    lines = strokes(list(dict.fromkeys(cell.rule for cell in cells)), [])
    for plot, model in zip(plots, models, strict=True):
        for name in dict.fromkeys(cell.rule for cell in cells if cell.model == model):
            mine = [cell for cell in cells if (cell.model, cell.rule) == (model, name)]
            curve(plot, [cell.window for cell in mine], [cell.saved for cell in mine], lines[name])
        doubling(plot, sorted({cell.window for cell in cells if cell.model == model}))
        plot.set(xlabel="window")
    plots[0].set_ylabel("evaluations saved, times")
    legend(figure, lines)
    return figure


def along(cells: Sequence[Speed]) -> Figure:
    """The share of drafts kept by their number in the image, of each rule at its first draft length."""
    rules = {cell.job.rule: cell for cell in reversed(cells)}
    figure, plots = panels(["kept drafts by number of the token", "measured and predicted speed-up"], 4.2, 3.0)
    lines = strokes([n for n, c in rules.items() if c.job.exact], [n for n, c in rules.items() if not c.job.exact])
    for name, cell in rules.items():
        kept = cell.decoded.kept.double()
        middle = kept.mean(0)
        room = NormalDist().inv_cdf(0.975) * (middle * (1 - middle) / len(kept)).sqrt()
        points = torch.stack((middle, middle - room, middle + room), -1).tolist()
        curve(plots[0], list(range(1, len(points) + 1)), [(a, b, c) for a, b, c in points], lines[name])
    plots[0].set(xlabel="number of the token", ylabel="share", ylim=(0, 1))
    for cell in cells:
        plots[1].plot(cell.predicted, cell.measured, "o", markersize=4, color=str(lines[cell.job.rule]["color"]))
    most = max(max(cell.predicted, cell.measured) for cell in cells) * 1.1
    plots[1].plot([0, most], [0, most], color=INK, linewidth=0.8, linestyle=":")
    plots[1].set(xlabel="predicted", ylabel="measured", xlim=(0, most), ylim=(0, most))
    legend(figure, lines)
    return figure


def heat(images: Images, parts: Mapping[str, Decoded]) -> Figure:
    """How often the token of each place is a kept draft."""
    figure, plots = panels(list(parts), 2.6, 2.9)
    across = round(images.length**0.5)
    for plot, part in zip(plots, parts.values(), strict=True):
        kept = torch.zeros(part.kept.shape, dtype=torch.float64).scatter(1, part.place, part.kept.double())
        shown = plot.imshow(kept.mean(0).reshape(across, across).numpy(), vmin=0, vmax=1, cmap="viridis")
        plot.set(xticks=[], yticks=[])
        plot.grid(visible=False)
    figure.colorbar(shown, ax=plots, shrink=0.8)
    return figure


def samples(images: Images, made: Mapping[str, Tensor], columns: int = 20) -> Figure:
    """A row of images for every name; tokens (n, N, d)."""
    figure = Figure((0.45 * columns + 1.6, 0.48 * len(made)), layout="constrained")
    for place, (name, tokens) in enumerate(made.items()):
        plot = figure.add_subplot(len(made), 1, place + 1)
        ink = torch.nn.functional.pad(1 - images.ink(tokens[:columns]), (1, 1, 1, 1), value=1.0)
        plot.imshow(torch.cat(list(ink), -1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        plot.set(xticks=[], yticks=[])
        plot.spines[:].set_visible(False)
        plot.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, color=INK)
    return figure
