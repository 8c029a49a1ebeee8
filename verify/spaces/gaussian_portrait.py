"""What distinguishes two samplers of continuous tokens: rows of both on one pair of laws, compared cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from verify.spaces.gaussian_rows import Rows

FEWEST = 20
"""Cells that hold fewer rows of the two together are merged."""


@dataclass(frozen=True)
class Difference:
    """One statistic of two samples. ``part``: what it reads, the ``law`` of what is emitted alone, which drafts are
    ``kept``, or the ``coupling``, where the others go.

    ``p_value`` by chi-square with ``freedom`` degrees of freedom; ``size`` is its excess in standard deviations,
    (statistic - freedom) / sqrt(2 freedom), proportional to the square of a distance.
    """

    name: str
    part: str
    p_value: float
    size: float


def differences(one: Rows, other: Rows) -> list[Difference]:
    """Two-sample chi-square statistics on cells that hold equal shares of the pooled rows.

    Of the law: the place along the mean difference, the radius across it, both together, one coordinate across with the
    place, and values that repeat. Jointly with the draft: which drafts are kept, and where the others go.
    """
    return [_difference(name, part, *codes) for name, part, codes in _features(one, other)]


def repeats(rows: Rows) -> Tensor:
    """Rows (n,) whose value occurs three times and more."""
    ordered, order = rows.emitted[:, 0].sort()
    again = ordered[2:] == ordered[:-2]
    found = torch.zeros(len(ordered), dtype=torch.bool)
    for shift in range(3):
        found[order[shift : len(order) - 2 + shift][again]] = True
    return found


def _features(one: Rows, other: Rows) -> Iterator[tuple[str, str, tuple[Tensor, Tensor]]]:
    split, dim = len(one.emitted), one.pair.dim

    def both(first: Tensor, second: Tensor) -> Tensor:
        return torch.cat((first, second))

    def halves(code: Tensor) -> tuple[Tensor, Tensor]:
        return code[:split], code[split:]

    drafted, emitted = (both(*parts) for parts in zip(one.coordinates, other.coordinates, strict=True))
    replaced = ~both(one.accepted, other.accepted)
    place, start = emitted[:, 0], drafted[:, 0]
    yield "place", "law", halves(_cells(place, 32, tails=True))
    yield "repeated values", "law", halves(both(repeats(one), repeats(other)).long())
    yield "share kept", "kept", halves(replaced.long())
    yield "drafts kept", "kept", halves(_cells(start, 16, tails=True) * 2 + replaced)
    yield "places of replacements", "coupling", halves(_within(replaced, _cells(place, 24, replaced)))
    joint = _cells(start, 8, replaced) * 8 + _cells(place, 8, replaced)
    yield "drafts and their replacements", "coupling", halves(_within(replaced, joint))
    if dim > 1:
        side, radius = emitted[:, 1], emitted[:, 2]
        yield "radius across", "law", halves(_cells(radius, 16))
        yield "place and radius", "law", halves(_cells(place, 6) * 6 + _cells(radius, 6))
        yield "place and a coordinate across", "law", halves(_cells(place, 6) * 6 + _cells(side, 6))
        yield "radius of replacements", "coupling", halves(_within(replaced, _cells(radius, 12, replaced)))
        across = _cells(drafted[:, 1], 6, replaced) * 6 + _cells(side, 6, replaced)
        yield "a coordinate across, of drafts and their replacements", "coupling", halves(_within(replaced, across))


def _cells(column: Tensor, count: int, among: Tensor | None = None, tails: bool = False) -> Tensor:
    """The cell (n,) of each row, of ``count`` cells with equal shares of the rows ``among`` them, or of all. With
    ``tails`` two smaller ones at either end, where what is kept that should not be lies.
    """
    chosen = column if among is None else column[among]
    if not len(chosen):
        return torch.zeros(len(column), dtype=torch.long)
    shares = torch.linspace(0, 1, count + 1)[1:-1]
    if tails:
        shares = torch.cat((shares, torch.tensor([0.002, 0.008, 0.992, 0.998])))
    ordered = chosen[:: max(1, len(chosen) // 8192)].sort().values  # the ends need not be exact
    ends = torch.as_tensor(np.unique(ordered[(shares * len(ordered)).long()].numpy()))
    return torch.bucketize(column.contiguous(), ends, right=True)


def _within(chosen: Tensor, code: Tensor) -> Tensor:
    """The code of the ``chosen`` rows, and one code for the others: so the share of the chosen counts as well."""
    return torch.where(chosen, code + 1, 0)


def _difference(name: str, part: str, first: Tensor, second: Tensor) -> Difference:
    size = int(max(first.max(), second.max())) + 1
    counts = [torch.bincount(each, minlength=size).double().numpy() for each in (first, second)]
    few = counts[0] + counts[1] < FEWEST
    one, other = (np.append(each[~few], each[few].sum()) for each in counts)
    held = one + other > 0
    one, other = one[held], other[held]
    freedom = len(one) - 1
    if freedom < 1:
        return Difference(name, part, 1.0, 0.0)
    ratio = (len(second) / len(first)) ** 0.5
    statistic = float(((one * ratio - other / ratio) ** 2 / (one + other)).sum())
    p_value = float(chi2.sf(statistic, freedom))
    return Difference(name, part, p_value, (statistic - freedom) / (2 * freedom) ** 0.5)
