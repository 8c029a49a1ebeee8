"""What two sums of weighted Gaussians on the line have in common, from the places where they cross."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributions.normal import normal_cdf

REACH = 8.0
"""Standard deviations beyond which a component's mass, 1e-15, is left out of an overlap."""


@dataclass(frozen=True, eq=False)
class Line:
    """Weighted Gaussians on the line, (rows, K) each; the weights of a row need not sum to one."""

    log_weight: Tensor
    mean: Tensor
    scale: Tensor

    def log_density(self, point: Tensor) -> Tensor:
        noise = (point.unsqueeze(-1) - self.mean) / self.scale
        return self.log_weight - 0.5 * noise.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def slope(self, point: Tensor) -> Tensor:
        """The derivative of the log density of the sum."""
        share = torch.softmax(self.log_density(point), -1)
        return (share * (self.mean - point.unsqueeze(-1)) / self.scale.square()).sum(-1)

    def mass_below(self, point: Tensor) -> Tensor:
        below = normal_cdf((point.unsqueeze(-1) - self.mean) / self.scale)
        return (self.log_weight.exp() * below).sum(-1)

    def __getitem__(self, rows: Any) -> Line:
        return Line(self.log_weight[rows], self.mean[rows], self.scale[rows])


def shared(first: Line, second: Line, grid: int) -> Tensor:
    """int min(first, second), by rows: the mass of the first less sum over crossing points of the cumulative excess.

    Crossing points are sought between the points of a grid of ``grid`` points a component, joined by the extrema of
    the log-ratio, so that two crossings in one cell are told from none.
    """
    reach = torch.linspace(-REACH, REACH, grid, dtype=torch.float64).to(first.mean)
    parts = [(law.mean.unsqueeze(-1) + law.scale.unsqueeze(-1) * reach).flatten(1) for law in (first, second)]
    points = torch.cat(parts, -1).sort(-1).values
    row, cell, extremum, _ = _sign_changes(_tilt, first, second, points)
    between = points[:, :-1].clone()
    between[row, cell] = extremum
    points = torch.cat((points, between), -1).sort(-1).values
    row, _, crossing, rising = _sign_changes(_log_ratio, first, second, points)

    excess = first[row].mass_below(crossing) - second[row].mass_below(crossing)
    mass, other = first.log_weight.exp().sum(-1), second.log_weight.exp().sum(-1)
    above = torch.where(_log_ratio(first, second, points[:, -1]) > 0, mass - other, torch.zeros_like(mass))
    return mass - above.index_add(0, row, torch.where(rising, -excess, excess))


def _log_ratio(first: Line, second: Line, point: Tensor) -> Tensor:
    return torch.logsumexp(first.log_density(point), -1) - torch.logsumexp(second.log_density(point), -1)


def _tilt(first: Line, second: Line, point: Tensor) -> Tensor:
    """The derivative of ``_log_ratio``."""
    return first.slope(point) - second.slope(point)


def _sign_changes(
    function: Callable[[Line, Line, Tensor], Tensor], first: Line, second: Line, points: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where a function changes sign between neighbouring ``points`` (rows, G): row, cell, place, rising or not."""
    positive = function(first[:, None], second[:, None], points) > 0
    row, cell = torch.nonzero(positive[:, 1:] != positive[:, :-1], as_tuple=True)
    low, high, rising = points[row, cell], points[row, cell + 1], positive[row, cell + 1]
    one, two = first[row], second[row]
    for _ in range(36):  # a crossing off by e costs the overlap e^2, as the densities are equal there
        middle = 0.5 * (low + high)
        beyond = (function(one, two, middle) > 0) == rising
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return row, cell, 0.5 * (low + high), rising
