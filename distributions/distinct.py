"""Which rows of a tensor are equal, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

ODD = 0x9E3779B97F4A7C15 - 2**64  # 2**64 / golden ratio


def distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """One member (K,) of each group of equal rows of ``rows`` (M, L), float64, and the group (M,) of every row.

    Rows are sorted by a 64-bit hash of their bits, a polynomial in ``ODD``, which is many times quicker than sorting
    the rows themselves; then each is compared with its group's member, so that a collision costs time and no more.
    """
    bits = rows.contiguous().view(torch.int64)
    key = torch.zeros(len(rows), dtype=torch.long)
    for column in (bits ^ bits >> 32).unbind(-1):
        key = (key ^ key >> 29) * ODD + column
    values, group = torch.unique(key, return_inverse=True)
    count = len(values)
    if not torch.equal(rows[_member(group, count)][group], rows):
        values, group = torch.unique(rows, dim=0, return_inverse=True)
        count = len(values)
    return _member(group, count), group


def _member(group: Tensor, count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.long).index_put((group,), torch.arange(len(group)))
