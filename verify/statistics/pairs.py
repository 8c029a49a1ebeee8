"""Two samples of one size, row beside row: what two-sample checks count."""

from __future__ import annotations

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape

FAR = 1e18
"""Where what is not a number, or infinite, is put: any function of the rows is a legal statistic, if it is finite."""


def pairs(sample: Tensor, truth: Tensor | Law, tape: Tape) -> tuple[Tensor, Tensor]:
    """``sample`` (n, *event) and as many draws of the truth, as float64 rows (n, d) of numbers.

    ``truth``: the target's own draws, of the sample's shape, or a law of batch shape () or (n,), which is drawn from.
    Under equality of the laws, rows x_i and y_i may be exchanged, pair by pair. Raises ValueError for draws of another
    number or shape.
    """
    n = len(sample)
    if not isinstance(truth, Tensor):
        each = truth if truth.batch_shape == (n,) else truth[None][torch.zeros(n, dtype=torch.long)]
        truth = each.sample(tape, "pairs.truth")
    if truth.shape != sample.shape:
        raise ValueError(
            f"a sample of shape {tuple(sample.shape)} cannot be paired with draws of shape {tuple(truth.shape)}; "
            "draw as many rows of the target"
        )
    return _numbers(sample), _numbers(truth)


def _numbers(rows: Tensor) -> Tensor:
    flat = rows.double().reshape(len(rows), -1)
    return flat.nan_to_num(FAR, FAR, -FAR) if flat.numel() else flat


def pilot(sample: Tensor, truth: Tensor | Law, tape: Tape, least: int) -> tuple[Tensor, Tensor]:
    """The pairs to learn from. Raises ValueError where there are fewer than ``least``."""
    if len(sample) < least:
        raise ValueError(f"{len(sample)} rows are too few to learn from; give a pilot of {least} or more")
    return pairs(sample, truth, tape)


def typical(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and scale (d,) of each column of ``rows``: the median, and the range of the middle 68 % halved, which no
    row far away moves; a column with no such range has the scale of its standard deviation, or 1.
    """
    levels = rows.new_tensor((0.1587, 0.5, 0.8413))
    low, middle, high = torch.quantile(rows[: 1 << 14], levels, dim=0)
    scale, spread = (high - low) / 2, (rows - middle).square().mean(0).sqrt()
    return middle, torch.where(scale > 0, scale, torch.where(spread > 0, spread, 1.0))
