"""Monotone maps of a number, with what a comparison of the result says of the argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.special import ndtr, ndtri

INF = math.inf


@dataclass(frozen=True)
class Step:
    """A monotone map. ``pull(c, strict)`` turns the event f(x) < c (or <=, not strict) into one on x: the cut, and
    whether it is strict; for a falling map the event is x > cut (or >=).
    """

    rising: bool
    apply: Callable[[float], float]
    pull: Callable[[float, bool], tuple[float, bool]]


def add(by: float) -> Step:
    """x + by."""
    return Step(True, lambda x: x + by, lambda c, s: (c - by, s))


def mul(by: float) -> Step:
    """x * by, by not zero."""
    return Step(by > 0, lambda x: _times(x, by), lambda c, s: (c / by, s))


def _times(x: float, by: float) -> float:
    return 0.0 if x == 0 else x * by


def _guard(function: Callable[[float], float], value: float, low: float, high: float) -> float:
    """``function`` on [low, high], with the ends' limits where the library raises."""
    try:
        return float(function(value))
    except OverflowError:
        return INF
    except ValueError:
        return low if value <= 0 else high


def log(base: float = math.e) -> Step:
    """log to a base, of x >= 0."""
    return Step(
        True,
        lambda x: (
            -INF if x <= 0 else (INF if x == INF else math.log(x) / math.log(base) if base != math.e else math.log(x))
        ),
        lambda c, s: (_power(base, c), s),
    )


def _power(base: float, c: float) -> float:
    return _guard(math.exp if base == math.e else lambda x: base**x, c, 0.0, INF)


LOG1P = Step(True, lambda x: -INF if x <= -1 else math.log1p(x), lambda c, s: (_guard(math.expm1, c, -1.0, INF), s))
EXP = Step(
    True, lambda x: _power(math.e, x), lambda c, s: (-INF, s) if c <= 0 else (INF if c == INF else math.log(c), s)
)
EXPM1 = Step(
    True, lambda x: _guard(math.expm1, x, -1.0, INF), lambda c, s: (-INF, s) if c <= -1 else (math.log1p(c), s)
)
PROBIT = Step(True, lambda x: float(ndtri(x)), lambda c, s: (float(ndtr(c)), s))
NORMAL_CDF = Step(
    True, lambda x: float(ndtr(x)), lambda c, s: (-INF, s) if c <= 0 else (INF, s) if c >= 1 else (float(ndtri(c)), s)
)
SIGMOID = Step(
    True,
    lambda x: 1.0 / (1.0 + _power(math.e, -x)),
    lambda c, s: (-INF, s) if c <= 0 else (INF, s) if c >= 1 else (math.log(c) - math.log1p(-c), s),
)


def reciprocal(positive: bool) -> Step:
    """1 / x on one side of zero."""

    def pull(c: float, s: bool) -> tuple[float, bool]:
        # 1/x falls on either side of zero: 1/x < c is x > 1/c there, everything or nothing where c has the other sign.
        if positive:
            return (INF, s) if c <= 0 else (1.0 / c, s)
        return (-INF, s) if c >= 0 else (1.0 / c, s)

    return Step(False, lambda x: (INF if positive else -INF) if x == 0 else 1.0 / x, pull)


def raise_to(exponent: float) -> Step:
    """x ** exponent, of x >= 0."""

    def pull(c: float, s: bool) -> tuple[float, bool]:
        if c <= 0:
            return (-INF, s) if exponent > 0 else (INF, s)
        return (_guard(lambda x: x ** (1.0 / exponent), c, 0.0, INF), s)

    def apply(x: float) -> float:
        if x == 0:
            return 0.0 if exponent > 0 else INF
        return _guard(lambda y: y**exponent, x, 0.0, INF)

    return Step(exponent > 0, apply, pull)


def clamp(low: float, high: float) -> Step:
    """x kept within [low, high]."""

    def pull(c: float, s: bool) -> tuple[float, bool]:
        if (c <= low) if s else (c < low):
            return (-INF, True)
        if (c > high) if s else (c >= high):
            return (INF, True)
        return (c, s)

    return Step(True, lambda x: min(max(x, low), high), pull)


def cast(dtype: torch.dtype) -> Step:
    """Rounding to a narrow floating type, whose values are far enough apart to count."""

    def down(x: float) -> float:
        return float(torch.tensor(x, dtype=torch.float64).to(torch.float32).to(dtype))

    def pull(c: float, s: bool) -> tuple[float, bool]:
        if math.isinf(c):
            return (c, s)
        near = torch.tensor(c, dtype=torch.float64).to(dtype)
        value = float(near)
        # The smallest representable value that f(x) must stay under (strict) or may not pass.
        up = torch.nextafter(near, torch.tensor(INF, dtype=dtype))
        bar = near if (value >= c if s else value > c) else up
        under = torch.nextafter(bar, torch.tensor(-INF, dtype=dtype))
        return ((float(bar) + float(under)) / 2, True)

    return Step(True, down, pull)
