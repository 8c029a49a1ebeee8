"""Conditional laws of data with a known density: one function a data set, from a condition to a Mixture.

A condition is two angles a and b, written (cos a, sin a, cos b, sin b); all zeros, the centre of both circles, stands
for none. Every law is about as wide as N(0, I) in each coordinate.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from functools import cache
from zlib import crc32

import torch
from torch import Tensor

from distributions.gaussian import FullGaussian
from distributions.mixture import Mixture
from distributions.tape import GeneratorTape, Tape

Data = Callable[[Tensor], Mixture]
CONDITION = 4
WIDE = 16


def datasets() -> dict[str, Data]:
    """Every data set by its name: the public functions of this file from a condition to a Mixture."""
    found = inspect.getmembers(sys.modules[__name__], inspect.isfunction)
    return {name: item for name, item in found if item.__annotations__ == {"condition": "Tensor", "return": "Mixture"}}


def conditions(tape: Tape, rows: int) -> Tensor:
    """Conditions (rows, 4) with both angles uniform on the circle."""
    return on_circles(2 * math.pi * tape.uniform("condition", (rows, CONDITION // 2)))


def on_circles(angle: Tensor) -> Tensor:
    """cos and sin of angles (*, n), in pairs: (*, 2 n)."""
    return torch.stack((angle.cos(), angle.sin()), -1).flatten(-2)


def ring(condition: Tensor) -> Mixture:
    """Eight Gaussians of sd .12 on a circle of radius 1.35 (1 + .2 cos b), turned by sin(a) / 4, the heavier the nearer
    to the direction a.
    """
    cos_a, sin_a, cos_b, _ = condition.double().unsqueeze(-2).unbind(-1)
    place = torch.arange(8, dtype=torch.float64, device=condition.device) * (math.pi / 4)
    angle = place + 0.25 * sin_a
    mean = torch.stack((angle.cos(), angle.sin()), -1) * (1.35 * (1 + 0.2 * cos_b)).unsqueeze(-1)
    weights = (0.7 * (cos_a * place.cos() + sin_a * place.sin())).exp()
    return Mixture(weights, FullGaussian(mean, 0.12 * torch.eye(2).to(mean)))


def moons(condition: Tensor) -> Mixture:
    """Two half circles of 12 Gaussians of sd .1 each, interleaved, turned by a, the second the heavier the larger
    cos b.
    """
    cos_a, sin_a, cos_b, _ = condition.double().unsqueeze(-2).unbind(-1)
    bend = (torch.arange(12, dtype=torch.float64, device=condition.device) + 0.5) * (math.pi / 12)
    first = torch.stack((bend.cos() - 0.5, bend.sin() - 0.25), -1)
    flat = 1.35 * torch.cat((first, -first))
    ahead, aside = flat.unbind(-1)
    mean = torch.stack((cos_a * ahead - sin_a * aside, sin_a * ahead + cos_a * aside), -1)
    second = torch.arange(24, device=condition.device) >= 12
    return Mixture((0.5 * cos_b * second).exp(), FullGaussian(mean, 0.1 * torch.eye(2).to(mean)))


def cross(condition: Tensor) -> Mixture:
    """Two flat Gaussians, sd 1.3 by .04, crossing at right angles, turned by sin(a) / 2 and moved by .5 (cos b, sin b):
    ill-conditioned, and the best predictions change over the width of a blade.
    """
    _, sin_a, cos_b, sin_b = condition.double().unbind(-1)
    angle = 0.5 * sin_a.unsqueeze(-1) + torch.tensor([0.25, 0.75], device=condition.device) * math.pi
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack((torch.stack((cosine, -sine), -1), torch.stack((sine, cosine), -1)), -2)
    spread = torch.tensor([1.3, 0.04]).to(turn)
    factor = torch.linalg.cholesky((turn * spread.square()) @ turn.mT)
    mean = 0.5 * torch.stack((cos_b, sin_b), -1).unsqueeze(-2).expand(*angle.shape, 2)
    return Mixture(torch.ones_like(angle), FullGaussian(mean, factor))


@cache
def _drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """The fixed numbers of a data set: standard normals, the same in every process."""
    return GeneratorTape(crc32(name.encode())).normal(name, shape)


def low_rank(condition: Tensor) -> Mixture:
    """Eight Gaussians in 16 dimensions, each of rank 4 with sd .6 over a floor of sd .15; all are moved, and weighted,
    by linear forms of the condition.
    """
    condition = condition.double()
    mean, axes, move, heavier = (
        _drawn(name, shape).to(condition.device)
        for name, shape in (
            ("mean", (8, WIDE)),
            ("axes", (8, WIDE, 4)),
            ("move", (CONDITION, WIDE)),
            ("weights", (CONDITION, 8)),
        )
    )
    thin = torch.linalg.qr(axes).Q
    factor = torch.linalg.cholesky(0.6**2 * thin @ thin.mT + 0.15**2 * torch.eye(WIDE).to(thin))
    moved = 0.75 * mean + 0.35 * (condition @ move).unsqueeze(-2)
    return Mixture((0.5 * condition @ heavier).exp(), FullGaussian(moved, factor))


def heavy_tailed(condition: Tensor) -> Mixture:
    """A mixture of the six scales .35, ..., 3.7 about one mean in 16 dimensions, weights falling as scale^-1.2: tails
    like those of Student's t. The mean moves with the condition; cos a makes the tails heavier.
    """
    condition = condition.double()
    scale = 0.35 * 1.6 ** torch.arange(6, dtype=torch.float64, device=condition.device)
    move = _drawn("heavy.move", (CONDITION, WIDE)).to(condition.device)
    mean = 0.35 * (condition @ move).unsqueeze(-2).expand(*condition.shape[:-1], 6, WIDE)
    factor = scale.reshape(-1, 1, 1) * torch.eye(WIDE).to(mean)
    weights = scale ** (-1.2 + 0.3 * condition[..., :1])
    return Mixture(weights, FullGaussian(mean, factor))


def ill_conditioned(condition: Tensor) -> Mixture:
    """One Gaussian in 16 dimensions, sd from 2 down to .02 along fixed oblique axes; the condition moves its mean."""
    condition = condition.double()
    turn = torch.linalg.qr(_drawn("ill.turn", (WIDE, WIDE))).Q.to(condition.device)
    spread = torch.logspace(math.log10(2.0), math.log10(0.02), WIDE, dtype=torch.float64, device=condition.device)
    factor = torch.linalg.cholesky((turn * spread.square()) @ turn.mT)
    move = _drawn("ill.move", (CONDITION, WIDE)).to(condition.device)
    mean = 0.4 * (condition @ move).unsqueeze(-2)
    return Mixture(mean.new_ones(*mean.shape[:-1]), FullGaussian(mean, factor))
