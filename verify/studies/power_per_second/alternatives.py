"""Three ways to be wrong: a sample and as many draws of the truth, drawn from a tape."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from distributions.tape import Tape

Alternative = Callable[[int, Tape], tuple[Tensor, Tensor]]


def mean_shift(n: int, tape: Tape) -> tuple[Tensor, Tensor]:
    """N(0.02, 1) for N(0, 1): total variation 0.008."""
    return tape.normal("sample", (n, 1)) + 0.02, tape.normal("truth", (n, 1))


def contamination(n: int, tape: Tape) -> tuple[Tensor, Tensor]:
    """N(0, I) in sixteen dimensions, one row in a hundred from N(c, I / 4), |c| = 3: total variation 0.0099."""
    x = tape.normal("sample", (n, 16))
    spoilt = tape.coin("spoilt", torch.full((n, 1), 0.01, dtype=torch.float64))
    return torch.where(spoilt, 0.75 + x / 2, x), tape.normal("truth", (n, 16))


def dependence(n: int, tape: Tape) -> tuple[Tensor, Tensor]:
    """Two autoregressive chains of eight steps with coefficient 0.48 for 0.50, all marginals N(0, 1): total variation
    0.043.
    """
    return _chains(tape.normal("sample", (n, 2, 8)), 0.48), _chains(tape.normal("truth", (n, 2, 8)), 0.5)


def _chains(noise: Tensor, coefficient: float) -> Tensor:
    steps = [noise[..., 0]]
    for step in noise[..., 1:].unbind(-1):
        steps.append(coefficient * steps[-1] + math.sqrt(1 - coefficient**2) * step)
    return torch.stack(steps, -1).flatten(1)


ALTERNATIVES: dict[str, Alternative] = {
    "mean shift": mean_shift,
    "contamination": contamination,
    "dependence": dependence,
}
