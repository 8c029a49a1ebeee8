"""What a window costs on this machine: the time of a pass over L tokens, and the line a + b L through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from scipy.stats import linregress

from distributions.transformer import TokenTransformer, forward, inputs


@dataclass(frozen=True)
class Line:
    """t(L) = a + b L in seconds, fitted to ``seconds``, the medians at each of ``lengths``."""

    a: float
    b: float
    lengths: tuple[int, ...]
    seconds: tuple[float, ...]

    def __call__(self, length: int) -> float:
        return self.a + self.b * length

    @staticmethod
    def through(lengths: Sequence[int], seconds: Sequence[float]) -> Line:
        """By least squares."""
        fit = linregress(list(lengths), list(seconds))
        return Line(float(fit.intercept), float(fit.slope), tuple(lengths), tuple(seconds))


def timed(call: Callable[[], Any], turns: int = 31) -> float:
    """Median seconds of a call."""
    seconds = []
    for _ in range(turns):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return median(seconds)


def passes(model: TokenTransformer, lengths: Sequence[int], rows: int = 1) -> Line:
    """A forward pass over L tokens of each of ``rows`` images after half an image that is in the cache."""
    tokens = torch.zeros(rows, model.size, dtype=torch.long)
    read, label = inputs(tokens, model.size, model.vocab), torch.zeros(rows, dtype=torch.long)
    half = model.size // 2
    _, cache = forward(model.weights, read[:, :half], label)

    def one(length: int) -> float:
        return timed(lambda: forward(model.weights, read[:, half : half + length], label, cache))

    one(lengths[0])  # warm
    return Line.through(lengths, [one(length) for length in lengths])
