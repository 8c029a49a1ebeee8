"""Integrals over many cells of the line at once, and the total variation of a difference of distribution functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.polynomial import Legendre
from torch import Tensor

REACH = 10.0
"""Standard deviations beyond which a normal law has mass 1e-23: what is left out."""


def lobatto(count: int) -> tuple[Tensor, Tensor]:
    """Gauss-Lobatto nodes and weights on [-1, 1]: the ends, and the roots of the derivative of the Legendre P_(n-1)."""
    polynomial = Legendre.basis(count - 1)
    nodes = np.concatenate(([-1.0], polynomial.deriv().roots().real, [1.0]))
    weights = 2 / (count * (count - 1) * polynomial(nodes) ** 2)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


_NODES, _WEIGHTS = lobatto(12)


def integrals(density: Callable[[Tensor, Tensor], Tensor], low: Tensor, high: Tensor, error: float = 1e-14) -> Tensor:
    """The integral of ``density`` over every cell from ``low`` to ``high`` (cells,).

    ``density(place, cell)`` (n,) receives places and the numbers of the cells they lie in. Twelve Gauss-Lobatto nodes,
    against twice twelve in the two halves; halves that differ by more than ``error`` are cells again, so that kinks and
    jumps are cornered, those near an end too, since ends are nodes. A cell narrower than 1e-11 is left as it is.
    """

    def rule(cell: Tensor, start: Tensor, end: Tensor) -> Tensor:
        half = (end - start).unsqueeze(-1) / 2
        place = (start + end).unsqueeze(-1) / 2 + half * _NODES
        value = density(place.flatten(), cell.repeat_interleave(len(_NODES)))
        return (value.reshape(place.shape) * half * _WEIGHTS).sum(-1)

    total, cell = torch.zeros_like(low), torch.arange(len(low))
    whole = rule(cell, low, high)
    while len(cell):
        middle = (low + high) / 2
        left, right = rule(cell, low, middle), rule(cell, middle, high)
        open_ = ((left + right - whole).abs() > error) & (high - low > 1e-11)
        total.index_add_(0, cell[~open_], (left + right)[~open_])
        cell = cell[open_].repeat(2)
        low, high = torch.cat((low[open_], middle[open_])), torch.cat((middle[open_], high[open_]))
        whole = torch.cat((left[open_], right[open_]))
    return total


def cumulative(density: Callable[[Tensor], Tensor], place: Tensor, start: float, error: float = 1e-14) -> Tensor:
    """The integral of ``density`` from ``start`` to each ``place`` (n,), which may be given in any order."""
    order = place.argsort()
    ends = torch.cat((place.new_full((1,), start), place[order].clamp(min=start)))
    sums = integrals(lambda x, _: density(x), ends[:-1], ends[1:], error).cumsum(0)
    return torch.empty_like(sums).index_put((order,), sums)


def variation(gap: Callable[[Tensor], Tensor], low: float, high: float, width: float) -> float:
    """Half the total variation of ``gap``, a difference of two distribution functions: the TV of the two laws.

    On places ``width`` apart, and closer around every place where ``gap`` turns, until a turn is known to 1e-10.
    """
    place = torch.linspace(low, high, round((high - low) / width) + 1, dtype=torch.float64)
    value = gap(place)
    while width > 1e-5:
        way = value.diff().where(value.diff().abs() > 1e-12, 0.0).sign()  # what is less is rounding
        turns = way[1:] != way[:-1]
        if not bool(turns.any()):
            break
        width /= 16
        steps = torch.arange(-16, 17, dtype=torch.float64) * width
        more = (place[1:-1][turns].unsqueeze(-1) + steps).flatten()
        place, value = torch.cat((place, more)), torch.cat((value, gap(more)))
        place, order = place.sort()
        value = value[order]
        fresh = torch.cat((place.new_ones(1).bool(), place.diff() > width / 2))
        place, value = place[fresh], value[fresh]
    return float(value.diff().abs().sum() / 2)


def inverse(function: Callable[[Tensor], Tensor], value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Where a monotone ``function`` of each row passes ``value`` (rows,), by bisection from ``low`` to ``high``."""
    rising = function(high) >= function(low)
    for _ in range(54):
        middle = (low + high) / 2
        short = (function(middle) <= value) == rising
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return (low + high) / 2
