"""The overlap of Gaussians of unequal covariance, by inverting the transform of their log-ratio."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

END_ERROR = 1e-12
"""Size of the first term left out where the inversion of an overlap is cut off."""

MAX_TURNS = 1e6
"""Radians of phase in one block past which the inversion gives up."""

SMALL = 1e-16
"""Overlaps that cannot be larger are taken for zero."""


def overlap(shift: Tensor, stretch: Tensor) -> Tensor:
    """1 - TV of N(shift, diag(exp(stretch))) and N(0, I): (rows,), of parameters (rows, d), to an absolute 1e-10.

    Imhof's inversion (Biometrika 48, 1961), moved to the line where the integrand is smallest:
    E_second[min(1, ratio)] = (1 / 2 pi i) int M(s) / (s (1 - s)) ds with M(s) = E_second[ratio^s], which is finite on
    0 < Re s < 1 because the log-ratio is a generalised chi-square. On s = 1/2 + i u this is
    (1 / pi) int_0^inf Re F(u) du, F = M / (1/4 + u^2). Blocks double in length until the end term F / (log F)', the
    first of an expansion of what is left, is exact to ``END_ERROR``. Raises ArithmeticError where that is out of reach.
    """
    node, weight = (torch.as_tensor(part).to(shift) for part in np.polynomial.legendre.leggauss(16))
    result, low, high = shift.new_zeros(len(shift)), 0.0, 0.25
    # F(0) / 4 bounds the overlap: below SMALL there is nothing to integrate, however fast it turns.
    bound = _transform(shift, stretch, shift.new_zeros(1))[0][:, 0].real
    rows = torch.nonzero(bound > math.log(4 * SMALL)).squeeze(-1)
    while len(rows):
        log_value, slope = _transform(shift[rows], stretch[rows], shift.new_tensor([low, high]))
        turns = float((log_value[:, 1] - log_value[:, 0]).imag.abs().max())
        if not turns <= MAX_TURNS:
            raise ArithmeticError(f"the overlap's integrand turns by {turns:.0e} radians; estimate it by sampling")
        edges = torch.linspace(low, high, 9 + int(turns / 4), dtype=torch.float64, device=shift.device)
        for part in range(0, len(edges) - 1, 64):
            edge = edges[part : part + 65]
            half = 0.5 * edge.diff().unsqueeze(-1)
            points = (edge[:-1].unsqueeze(-1) + half * (1 + node)).flatten()
            density = _transform(shift[rows], stretch[rows], points)[0].exp().real
            result[rows] += density @ (half * weight).flatten()
        end = log_value[:, 1].exp()
        done = end.abs() / (slope[:, 1].abs().square() * high) < END_ERROR
        result[rows[done]] -= (end / slope[:, 1]).real[done]
        rows, low, high = rows[~done], high, 2 * high
    return (result / math.pi).clamp(0.0, 1.0)


def _transform(shift: Tensor, stretch: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """log F and its derivative (rows, points) in ``overlap``."""
    power = torch.complex(torch.full_like(points, 0.5), points)
    rest, kernel = 1 - power, power * (1 - power)
    value, slope = -kernel.log(), -(1 - 2 * power) / kernel
    for square, log_spread in zip(shift.square().T.unsqueeze(-1), stretch.T.unsqueeze(-1), strict=True):
        mixed = rest * log_spread.exp() + power
        change = -torch.expm1(log_spread)
        value = value + 0.5 * (rest * log_spread - mixed.log() - kernel * square / mixed)
        inner = log_spread + change / mixed + square * (1 - 2 * power - kernel * change / mixed) / mixed
        slope = slope - 0.5 * inner
    return value, 1j * slope
