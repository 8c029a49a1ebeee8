"""What the tests of checks against a known law share: laws, distances by quadrature, and counts of rejections."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy import integrate, special
from torch import Tensor

from distributions.autoregressive import Markov
from distributions.gaussian import Gaussian
from distributions.tape import GeneratorTape
from verify.checks import Check

Draw = Callable[[GeneratorTape], Tensor]
WORDS = Markov.random(5, 1, 3)


def normal(dim: int = 1) -> Gaussian:
    return Gaussian(torch.zeros(dim), torch.ones(dim))


def spoken(tape: GeneratorTape, rows: int, length: int) -> Tensor:
    """Sequences of WORDS."""
    state, tokens = WORDS.start(rows), []
    for place in range(length):
        tokens.append(WORDS.law(state).sample(tape, f"token.{place}"))
        state = WORDS.extend(state, tokens[-1], torch.ones(rows, dtype=torch.long))
    return torch.cat(tokens, 1)


SHIFT = 0.1
RHO = 0.1


def gap_of(u: float, shift: float = SHIFT) -> float:
    """G(u) - u of the transform of N(shift, 1) under N(0, 1)."""
    return float(special.ndtr(special.ndtri(u) - shift) - u)


@cache
def distances(shift: float) -> dict[str, float]:
    """How far N(shift, 1) is from N(0, 1) in each metric, by quadrature over the transform."""

    def density(u: float) -> float:
        z = special.ndtri(u)
        return float(np.exp(z * shift - shift**2 / 2))

    def mean(j: int) -> float:
        size = math.sqrt(2 * j + 1)
        return float(integrate.quad(lambda u: size * special.eval_legendre(j, 2 * u - 1) * density(u), 0, 1)[0])

    edges = np.linspace(0, 1, 5)
    masses = np.diff([gap_of(u, shift) for u in edges])
    return {
        "ks": 2 * special.ndtr(shift / 2) - 1,
        "rms gap": math.sqrt(integrate.quad(lambda u: gap_of(u, shift) ** 2, 0, 1)[0]),
        "anderson-darling distance": math.sqrt(
            integrate.quad(lambda u: gap_of(u, shift) ** 2 / (u * (1 - u)), 0, 1, limit=400)[0]
        ),
        "legendre norm": math.sqrt(sum(mean(j) ** 2 for j in range(1, 5))),
        "tv on cells": np.abs(masses).sum() / 2,
        "correlation": 6 / math.pi * math.asin(RHO / 2),
    }


def shifted_to(metric: str, size: float) -> float:
    """The shift of a normal law that has this distance."""
    low, high = 0.0, 2.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if distances(middle)[metric] < size else (low, middle)
    return high


def promise(check: Check, dim: int, n: int) -> float:
    z = GeneratorTape().normal("z", (n, dim))
    size = check(z, normal(dim), 1e-3, GeneratorTape()).smallest
    assert size is not None
    return size


def seen(check: Check, draw: Draw, truth: Any, runs: int = 100) -> int:
    tape = GeneratorTape(11)
    return sum(check(draw(tape), truth, 1e-3, tape).rejects for _ in range(runs))
