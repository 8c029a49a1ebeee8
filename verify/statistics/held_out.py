"""A learned score, counted on fresh rows: is its mean the same for the sample and for the truth?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from scipy.special import betaincinv, ndtr, ndtri
from torch import Tensor

from distributions.tape import Tape
from verify.checks import Check, Tally
from verify.records import CheckClaim, Finding
from verify.statistics.learned import Learned
from verify.statistics.pairs import pairs

RADEMACHER = 1 / (4 * float(ndtr(-math.sqrt(2))))
"""3.178: the tail of any weighted sum of fair signs, of variance one, is at most this many times the normal one."""
CHUNK = 1 << 10
"""Rows scored at a time, so that their features stay in the cache."""


class Score(Protocol):
    """A function of rows (n, d), larger (n,) where the pilot's sample was the denser."""

    def __call__(self, rows: Tensor) -> Tensor: ...


def scores(score: Score, rows: Tensor) -> Tensor:
    """``score`` of all rows (n, d), a chunk at a time: (n,)."""
    return torch.cat([score(part) for part in torch.split(rows, CHUNK)])


@dataclass(frozen=True, eq=False)
class Differences(Tally):
    """Of n pairs: the sum of f(x) - f(y), the sum of its square, and how often f(x) and f(y) pass the cut."""

    total: float
    square: float
    hits: int
    others: int


@dataclass(frozen=True, eq=False)
class ScoreDifference(Learned):
    """Differences of a score f over pairs of rows, with the event f > ``cut``."""

    score: Score
    cut: float

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> Differences:
        first, second = (scores(self.score, rows) for rows in pairs(sample, truth, tape))
        apart = first - second
        above = [int((part > self.cut).sum()) for part in (first, second)]
        return Differences(len(apart), float(apart.sum()), float(apart.square().sum()), *above)


@dataclass(frozen=True, eq=False)
class HeldOut(Learned, Check):
    """One-sided test that the score's mean is no larger for the sample than for the truth, exact at every n.

    z_i = f(x_i) - f(y_i) is symmetric under equality, so given all |z_i| the sum S is a sum of fair signs times |z_i|.
    With T = S / sqrt(sum z_i^2), P(T >= t) <= min(exp(-t^2 / 2), 3.178 (1 - Phi(t))): Hoeffding 1963, and Bentkus and
    Dzindzalieta (Bernoulli 21, 2015, Theorem 1.1), whose constant 1 / (4 (1 - Phi(sqrt 2))) is the smallest. Against
    the normal law, which is only a limit, this costs 16 % more rows at level 1e-3 and 8 % at 1e-6.

    ``lower`` certifies a bias: the event f > ``cut`` was chosen on the pilot, TV is at least the difference of its
    probabilities. ``statistic`` is T / sqrt n, and ``smallest`` the mean of z in its standard deviations, which are
    1.41 times those of f. ``name``: what the finding calls the check.
    """

    score: Score
    cut: float
    delta: float = 1e-6
    name: ClassVar[str] = "held_out"
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="what the pilot showed, if the score can express it",
        blind_to="every change that leaves the mean of the learned score where it was",
    )

    @classmethod
    def after(cls, score: Score, first: Tensor, second: Tensor) -> Self:
        """The check of a score learned on the pilot of rows ``first`` and ``second``, with the event to watch."""
        many, few = (scores(score, rows[: 1 << 14]) for rows in (first, second))
        return cls(score, heaviest_event(many, few))

    @property
    def statistic(self) -> ScoreDifference:
        return ScoreDifference(self.score, self.cut)

    def judge(self, tally: Differences, alpha: float) -> Finding:
        n = tally.n
        size = tally.total / math.sqrt(tally.square) if tally.square > 0 else 0.0
        lower = self.lower(tally)
        return Finding(
            verifier="",
            scenario="",
            check=self.name,
            statistic=size / math.sqrt(n) if n else 0.0,
            p_value=sign_tail(size),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"the event learned occurs {tally.hits} times and {tally.others}: tv >= {lower:.3g}",
            metric="witness",
            smallest=detectable(n, alpha),
        )

    def lower(self, tally: Differences) -> float:
        """A lower bound on the total variation at confidence 1 - ``delta``."""
        return more_often(tally.hits, tally.others, tally.n, self.delta)


def sign_tail(size: float) -> float:
    """The most that P(T >= size) can be, T a sum of independent fair signs with weights of unit norm."""
    if size <= 0:
        return 1.0
    return min(1.0, math.exp(-(size**2) / 2), RADEMACHER * float(ndtr(-size)))


def detectable(n: int, alpha: float) -> float | None:
    """The mean of z, in its standard deviations, that n pairs show nine times in ten; None where no mean would do.

    T is near sqrt n r with r = m / sqrt(1 + m^2), and its own deviation at most one.
    """
    room = -float(ndtri(alpha / RADEMACHER) + ndtri(0.1)) / math.sqrt(n) if n else 1.0
    return room / math.sqrt(1 - room**2) if room < 1 else None


def more_often(hits: int, others: int, n: int, delta: float) -> float:
    """By how much an event is more probable under the law of the ``hits`` than under that of the ``others`` at least,
    each counted among n rows; 0 if nothing can be said. Confidence 1 - ``delta``.

    The larger of two bounds that hold with probability 1 - delta / 2 each. The difference of the ends of two
    Clopper-Pearson intervals is good for rare events. For others: of the 2 n guesses "the event says which law",
    hits + n - others are right, their mean is (1 + difference) / 2, and the Clopper-Pearson bound of the binomial law
    holds for chances that differ as well (Hoeffding 1956, Theorem 4).
    """
    if not n:
        return 0.0
    apart = _at_least(hits, n, delta / 4) - (1 - _at_least(n - others, n, delta / 4))
    return max(0.0, apart, 2 * _at_least(hits + n - others, 2 * n, delta / 2) - 1)


def _at_least(hits: int, n: int, delta: float) -> float:
    """The lower end of the interval of Clopper and Pearson (1934), one-sided at confidence 1 - ``delta``."""
    return float(betaincinv(hits, n - hits + 1, delta)) if hits else 0.0


def heaviest_event(first: Tensor, second: Tensor, errors: float = 5.0) -> float:
    """The cut above which the scores ``first`` are more frequent than ``second``, both (n,), by the most after
    ``errors`` standard errors, the bound that a fresh sample is expected to certify.
    """
    n = len(first)
    pooled = torch.cat((first, second)).sort().values
    cuts = pooled[:: max(1, len(pooled) // 1000)].contiguous()
    above, other = (1 - torch.searchsorted(part.sort().values, cuts, right=True) / n for part in (first, second))
    error = (above * (1 - above) + other * (1 - other) + 1 / n).div(n).sqrt()
    return float(cuts[(above - other - errors * error).argmax()])
