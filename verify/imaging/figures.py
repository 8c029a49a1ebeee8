"""What decoding made and cost, as numbers and as pictures."""

from __future__ import annotations

import resource
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from distributions.images import Images
from verify.imaging.run import Decoded
from verify.imaging.setting import Setting


def summary(setting: Setting, parts: Sequence[Decoded]) -> dict[str, float]:
    """Of all batches. ``acceptance``: kept drafts among those examined. ``target_calls``: parallel evaluations of the
    target's backbone, for each image, and for each token. ``seconds`` an image; ``peak_megabytes`` of this process.
    """
    rows = sum(len(part.label) for part in parts)
    length = setting.images.length
    calls = sum(float(part.trace.rounds.sum()) for part in parts) / rows
    examined, kept = (sum(counted(part)[which] for part in parts) for which in (0, 1))
    return {
        "images": rows,
        "acceptance": kept / examined if examined else 0.0,
        "kept_share": sum(float(part.kept.sum()) for part in parts) / (rows * length),
        "target_calls": calls,
        "target_calls_per_token": calls / length,
        "seconds_per_image": sum(part.seconds for part in parts) / rows,
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def counted(part: Decoded) -> tuple[float, float]:
    """Drafts that were examined, and those of them kept: in a round all up to the first one refused, or all of them
    where a rule goes on after a refusal. What is drafted beyond the end of an image is nobody's token, and not counted.
    NaN stands for rounds without a draft.
    """
    trace = part.trace
    before = trace.lengths.cumsum(0) - trace.lengths
    inside = before.unsqueeze(-1) + torch.arange(trace.kept.shape[-1]) < trace.tokens.shape[1]
    there = ~trace.log_accept.isnan() & (trace.lengths > 0).unsqueeze(-1) & inside
    ahead = trace.kept.long().cumprod(-1)
    closed = torch.equal(ahead.bool(), trace.kept)
    reached = torch.cat((torch.ones_like(ahead[..., :1]), ahead[..., :-1]), -1).bool() if closed else there
    return float((there & reached).sum()), float((there & reached & trace.kept).sum())


def grid(images: Images, tokens: Tensor, columns: int = 10) -> Figure:
    """Images side by side, ink on paper."""
    ink = 1 - images.ink(tokens)
    rows = -(-len(ink) // columns)
    wide = torch.ones(rows * columns, *ink.shape[1:], dtype=ink.dtype)
    wide[: len(ink)] = ink
    side = ink.shape[-1]
    sheet = torch.nn.functional.pad(wide, (1, 1, 1, 1), value=0.85).reshape(rows, columns, side + 2, side + 2)
    sheet = sheet.transpose(1, 2).reshape(rows * (side + 2), columns * (side + 2))
    figure = Figure(figsize=(0.6 * columns, 0.6 * rows))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    return figure


def heat(images: Images, parts: Sequence[Decoded]) -> Figure:
    """How often the token of each place is a kept draft, and how often that of each place in the order of decoding."""
    kept = torch.cat([part.kept for part in parts]).double()
    place = torch.cat([part.place for part in parts])
    size, across = images.length, round(images.length**0.5)
    total = torch.zeros(size).double().index_add_(0, place.flatten(), kept.flatten())
    count = torch.zeros(size).double().index_add_(0, place.flatten(), torch.ones_like(kept).flatten())
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.8))
    shown = left.imshow((total / count).reshape(across, across).numpy(), vmin=0, vmax=1, cmap="viridis")
    left.set_title("by place in the image", fontsize=9)
    left.set_xticks([])
    left.set_yticks([])
    figure.colorbar(shown, ax=left, shrink=0.8)
    right.plot(torch.arange(1, size + 1).numpy(), kept.mean(0).numpy(), linewidth=1)
    right.set_title("by number of the token", fontsize=9)
    right.set_ylim(0, 1)
    right.set_ylabel("share of kept drafts")
    return figure
