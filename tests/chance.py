"""How far a count of runs may be from its mean by chance."""

from __future__ import annotations

from scipy.stats import binom

TAIL = 1e-6
"""An assertion on a count of runs fails by chance with at most this probability (a binomial quantile)."""


def at_most(level: float, runs: int) -> int:
    return int(binom.isf(TAIL, runs, level))


def at_least(power: float, runs: int) -> int:
    return int(binom.ppf(TAIL, runs, power))
