"""The law of a weighted integral of the squared Brownian bridge, to full relative precision in its tail."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import brentq

INTERVALS, NODES = 60, 64
Array = np.ndarray


@dataclass(frozen=True)
class Integral:
    """X = sum over j of Z_j^2 / (2 s_j), Z_j independent N(0, 1), with s_1 < s_2 < ... the zeros of D(s) = product of
    (1 - s / s_j).

    The characteristic function, D^(-1/2), inverted along the cuts between its branch points (Smirnov, Matematicheskii
    Sbornik 2, 1937):

        P(X > x) = (1 / pi) sum over k >= 1 of (-1)^(k+1) integral from s_{2k-1} to s_{2k} of e^{-s x} / (s sqrt|D(s)|).

    The integrand has inverse roots at both ends, so the rule of Gauss and Chebyshev applies, and converges
    exponentially. The first term has the order of e^{-s_1 x}, the second of e^{-s_3 x}: nothing cancels in the tail.
    ``zeros``: s_j for an array of j. ``product``: D(s). ``least``: below it P(X > x) is 1 to 1e-9.
    """

    zeros: Callable[[Array], Array]
    product: Callable[[Array], Array]
    least: float

    @property
    def weight(self) -> float:
        """The largest weight, 1 / (2 s_1): no direction of the bridge has more variance."""
        return float(0.5 / self.zeros(np.ones(1))[0])

    def sf(self, x: float) -> float:
        """P(X > x)."""
        if x < self.least:
            return 1.0
        place, weight = _rule(self)
        return float(min(1.0, max(0.0, (np.exp(-place * x) * weight).sum())))

    def isf(self, level: float) -> float:
        """The x that is exceeded with probability ``level``."""
        return _isf(self, level)


@cache
def _rule(law: Integral) -> tuple[Array, Array]:
    """Nodes and signed weights of all intervals (intervals, nodes)."""
    ends = law.zeros(np.arange(1, 2 * INTERVALS + 1)).reshape(INTERVALS, 2, 1)
    half, middle = (ends[:, 1] - ends[:, 0]) / 2, (ends[:, 1] + ends[:, 0]) / 2
    place = middle + half * np.cos((np.arange(NODES) + 0.5) * math.pi / NODES)
    root = np.sqrt((place - ends[:, 0]) * (ends[:, 1] - place) / np.abs(law.product(place)))
    sign = (-1.0) ** np.arange(INTERVALS)[:, None]
    return place, sign * root / place / NODES


@cache
def _isf(law: Integral, level: float) -> float:
    def apart(x: float) -> float:
        return math.log(max(law.sf(x), 1e-320) / level)

    return float(brentq(apart, law.least, 700 * 2 * law.weight, xtol=1e-12))


ANDERSON_DARLING = Integral(
    lambda j: j * (j + 1) / 2, lambda s: -np.cos(math.pi / 2 * np.sqrt(1 + 8 * s)) / (2 * math.pi * s), 0.05
)
"""The integral of B(u)^2 / (u (1 - u)): weights 1 / (j (j + 1)) (Anderson and Darling 1952)."""
CRAMER_VON_MISES = Integral(lambda j: (j * math.pi) ** 2 / 2, lambda s: np.sin(np.sqrt(2 * s)) / np.sqrt(2 * s), 0.008)
"""The integral of B(u)^2: weights 1 / (j pi)^2."""
