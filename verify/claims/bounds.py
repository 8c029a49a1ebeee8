"""How fast a lossless scheme can be: tokens per target call, and two models of the time a sequence takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize_scalar


def tokens_per_call(alpha: float, gamma: float) -> float:
    """Tokens a target call emits where each of ``gamma`` tests is passed with probability ``alpha``, independently, the
    drafts after the first that fails are dropped, and one token of the target's own follows.

    1 + a + ... + a^g = (1 - a^(g+1)) / (1 - a): Leviathan, Kalman and Matias (2211.17192), equation 1. An infinite
    ``gamma`` gives 1 / (1 - a).
    """
    return gamma + 1.0 if alpha == 1.0 else (1.0 - alpha ** (gamma + 1.0)) / (1.0 - alpha)


def tokens_at_most(alpha: float, gamma: float) -> float:
    """The most tokens a call of any lossless scheme with one draft a position emits: 1 + g a.

    A draft is kept only if those before it are, so that P(i kept) <= P(first kept) <= 1 - TV = a, for every i: the sum
    over i is at most g a. Where a stands for kept among drafted, it *is* the number of tokens.
    """
    return 1.0 if alpha == 0.0 else 1.0 + gamma * alpha


def speedup(tokens: float, gamma: float, cost: float = 0.0) -> float:
    """Tokens per call over the time of a call, g c + 1, in steps of the target; c the cost of a step of the drafter."""
    return tokens if cost == 0.0 else tokens / (gamma * cost + 1.0)


def least_alpha(speed: float, gamma: float) -> float | None:
    """The ``alpha`` at which ``tokens_per_call`` is ``speed``; None where no alpha reaches it."""
    if speed <= 1.0:
        return 0.0
    if speed > tokens_per_call(1.0, gamma):
        return None
    return float(brentq(lambda alpha: tokens_per_call(alpha, gamma) - speed, 0.0, 1.0))


@dataclass(frozen=True)
class Fit:
    """``costs``: the drafter's step in target steps, one for each series; ``errors``: of each figure, relative."""

    costs: tuple[float, ...]
    prefilled: float
    errors: tuple[float, ...]

    @property
    def worst(self) -> float:
        """The largest of the errors in size."""
        return max(abs(error) for error in self.errors)


@dataclass(frozen=True)
class Series:
    """Speed-ups that share one unknown, the drafter's cost: ``tokens`` (n,) of a call, its ``gammas`` (n,)."""

    tokens: np.ndarray
    gammas: np.ndarray
    speedups: np.ndarray

    def errors(self, cost: float, prefilled: float) -> np.ndarray:
        """The model's speed-up over the published one, less 1; 1 / S = f + (1 - f) (g c + 1) / tokens per call."""
        seconds = prefilled + (1.0 - prefilled) * (self.gammas * cost + 1.0) / self.tokens
        return np.asarray(1.0 / (seconds * self.speedups) - 1.0)

    def cost(self, prefilled: float) -> float:
        """The cost, not negative, whose largest error is least."""
        most = float((self.tokens / self.gammas).max()) * 2.0
        found = minimize_scalar(
            lambda cost: np.abs(self.errors(cost, prefilled)).max(), bounds=(0.0, most), method="bounded"
        )
        return min((0.0, float(found.x)), key=lambda cost: float(np.abs(self.errors(cost, prefilled)).max()))


def fit(series: Sequence[Series], prefilled: float | None) -> Fit:
    """One cost for each series, and where it is not given one share f of tokens drawn by the target alone before any
    is drafted; the largest relative error is least.

    Without rollback a call emits all that was drafted, g tokens and no more: 1 / S = f + (1 - f) (c + 1 / g), which has
    no acceptance in it. That is ``Series.tokens`` = g. With rollback they are ``tokens_per_call``.
    """

    def at(share: float) -> Fit:
        costs = [item.cost(share) for item in series]
        errors = [item.errors(cost, share) for item, cost in zip(series, costs, strict=True)]
        return Fit(tuple(costs), share, tuple(np.concatenate(errors).tolist()))

    if prefilled is not None:
        return at(prefilled)
    found = minimize_scalar(lambda share: at(share).worst, bounds=(0.0, 0.9), method="bounded")
    return min((at(0.0), at(float(found.x))), key=lambda item: item.worst)
