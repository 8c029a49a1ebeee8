"""The law of x_0 of a chain on the line, step by step on grids as fine as the kernels need."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributions.gaussian import Gaussian
from distributions.path import Kernel

REACH = 7.5
"""Standard deviations of a step on both sides that a grid covers."""
NOTHING = 1e-15
"""Of the highest density: a grid ends where there is less."""
BEYOND = 9.0
"""Standard deviations from which on a step is left out of a sum."""
ROWS = 64


@dataclass(frozen=True, eq=False)
class Tabled:
    """A density (n,) at evenly spaced places (n,)."""

    place: Tensor
    density: Tensor

    @property
    def spacing(self) -> float:
        return float(self.place[1] - self.place[0])


def marginal(kernel: Kernel, fineness: float = 0.5) -> Tabled:
    """The density of x_0 of a chain of dimension 1 with Gaussian steps.

    density_{t-1}(y) = sum over x of spacing density_t(x) N(y; mean_t(x), scale_t(x)^2): the rule of rectangles, whose
    error for Gaussians of width w is exp(-2 (pi w / spacing)^2). The integrand at level t is as narrow as the step from
    t, seen from x (its scale over the slope of its mean), and as the step into t; a spacing is ``fineness`` times the
    narrowest. Raises TypeError for other kernels, ArithmeticError where mass is lost.
    """
    law = _line(kernel.start())
    into = float(law.scale.max())
    low, high = (float(law.mean.mean()) + side * REACH * into for side in (-1, 1))
    found: Tabled | None = None
    for time in range(kernel.steps, 0, -1):
        coarse = torch.linspace(low, high, 2001, dtype=torch.float64)
        step = _line(kernel.step(time, coarse.unsqueeze(-1)))
        slope = float((step.mean.diff(dim=0).squeeze(-1) / coarse.diff()).abs().max())
        width = float(step.scale.min())
        place = _evenly(low, high, fineness * min(into, width / max(slope, 1e-6)))
        found = Tabled(place, law.log_prob(place.unsqueeze(-1)).exp()) if found is None else _pushed(found, law, place)
        held = found.density > NOTHING * found.density.max()
        found = Tabled(place[held], found.density[held])  # without the ends, where there is nothing
        law, into = _line(kernel.step(time, found.place.unsqueeze(-1))), width
        low, high = float((law.mean - REACH * law.scale).min()), float((law.mean + REACH * law.scale).max())
    assert found is not None
    found = _pushed(found, law, _evenly(low, high, fineness * into))
    mass = float(found.density.sum()) * found.spacing
    if abs(mass - 1) > 1e-7:
        raise ArithmeticError(f"the density of x_0 has mass {mass:.9f}; lower fineness")
    return found


def shared(first: Tabled, second: Tabled) -> float:
    """The integral of the smaller of two densities, 1 - TV, on the finer of their grids; straight between places."""
    if first.spacing > second.spacing:
        first, second = second, first
    gap = (first.place - second.place[0]) / second.spacing
    low = gap.floor().clamp(0, len(second.place) - 2).long()
    part = gap - low
    other = second.density[low] * (1 - part) + second.density[low + 1] * part
    other = torch.where((part < 0) | (part > 1), 0.0, other)
    return float(torch.minimum(first.density, other).sum()) * first.spacing


def _pushed(before: Tabled, law: Gaussian, place: Tensor) -> Tabled:
    """The density at ``place`` one step later, ``law`` being the step from every place before."""
    mean, scale = law.mean.squeeze(-1), law.scale.squeeze(-1)
    weight = before.density * before.spacing / (scale * math.sqrt(2 * math.pi))
    rows = []
    for part in torch.split(place, ROWS):
        near = (mean + BEYOND * scale > part[0]) & (mean - BEYOND * scale < part[-1])
        apart = (part.unsqueeze(-1) - mean[near]) / scale[near]
        rows.append(apart.square_().mul_(-0.5).exp_() @ weight[near])
    return Tabled(place, torch.cat(rows))


def _evenly(low: float, high: float, spacing: float) -> Tensor:
    return torch.linspace(low, high, 1 + math.ceil((high - low) / spacing), dtype=torch.float64)


def _line(law: Any) -> Gaussian:
    if not isinstance(law, Gaussian) or law.event_shape != (1,):
        raise TypeError(
            f"a step is a {type(law).__name__} of shape {law.event_shape}; this needs Gaussians on the line"
        )
    return law
