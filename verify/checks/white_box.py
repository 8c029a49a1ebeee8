"""The white box: a rule's probability of acceptance, evaluated at drafts, beside the exact one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from distributions.tape import Tape
from verify.checks import Check, Tally
from verify.checks.coupling import Block, upper
from verify.records import CheckClaim, Finding
from verify.statistics.extremes import Largest

SHARES = 6
"""Bounds that hold together: E+ from both sides, E- from above and where a* < 1 from below, 1 - b*, and the astray."""
BETTER = 1.2816
"""The normal quantile of 0.9."""


@dataclass(frozen=True, eq=False)
class Differences(Tally):
    """Sums over drafts, with those of the squares: ``over`` of (a' - a*)+, ``under`` of (a* - a')+, ``inner`` of the
    same where a* < 1, ``refused`` of 1 - a*; how many rows went ``astray`` (``Block``), all if that is not known; and
    the ``largest`` |a' - a*|.
    """

    over: float
    over_square: float
    under: float
    under_square: float
    inner: float
    inner_square: float
    refused: float
    refused_square: float
    astray: int
    largest: Largest


@dataclass(frozen=True)
class AcceptanceDifference:
    """``sample``: log a' at drafts from the drafter's law, (n,) or (n, N), of which the first node counts; ``truth``:
    log min(1, target / draft) there, of the same shape; or Blocks that have them. A log a' that is not a number is a
    coin that always fails.
    """

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> Differences:
        found, wanted = (_chance(part) for part in (sample, truth))
        gap, refused = found - wanted, 1 - wanted
        over, under = gap.clamp(min=0), (-gap).clamp(min=0)
        inner = torch.where(refused > 0, under, 0.0)
        astray = sample.astray if isinstance(sample, Block) else None
        return Differences(
            n=len(gap),
            over=float(over.sum()),
            over_square=float(over.square().sum()),
            under=float(under.sum()),
            under_square=float(under.square().sum()),
            inner=float(inner.sum()),
            inner_square=float(inner.square().sum()),
            refused=float(refused.sum()),
            refused_square=float(refused.square().sum()),
            astray=len(gap) if astray is None else int(astray.sum()),
            largest=Largest(float(gap.abs().max()) if len(gap) else 0.0),
        )


def _chance(given: Any) -> Tensor:
    """The probability (n,) that the first node is kept. Raises ValueError for Blocks that do not have it."""
    log_accept = given.log_accept if isinstance(given, Block) else given
    if log_accept is None:
        raise ValueError("these blocks have no log_accept; give them that of their first node")
    first: Tensor = log_accept.double().reshape(len(log_accept), -1)[:, :1].sum(-1)
    return torch.nan_to_num(first, nan=-math.inf, neginf=-math.inf).exp().clamp(0.0, 1.0)


def margin(total: float, square: float, n: int, delta: float) -> float:
    """What a mean of n independent numbers in [0, 1] may be off by, to one side, at confidence 1 - ``delta``.

    Maurer and Pontil (COLT 2009), theorem 4: sqrt(2 V ln(2 / delta) / n) + 7 ln(2 / delta) / (3 (n - 1)), V the sample
    variance, from their sum and the sum of their squares.
    """
    if n < 2:
        return 1.0
    variance = max(0.0, square - total * total / n) / (n - 1)
    level = math.log(2 / delta)
    return math.sqrt(2 * variance * level / n) + 7 * level / (3 * (n - 1))


@dataclass(frozen=True)
class WhiteBox(Check):
    """Bounds on the total variation from the acceptance alone, for rules that keep a draft x ~ q with a probability a'
    that is a function of x, and otherwise draw from a law r'.

    Write a* = min(1, p / q), b = E a, and r* for the law (p - q)+, normalised. What is emitted departs from p by
    out - p = q (a' - a*) + (b* - b') r' + (1 - b*)(r' - r*). Let E+ = E (a' - a*)+ and E- = E (a* - a')+, so that
    |b* - b'| = |E+ - E-|. Half the integral of the absolute value gives

        TV <= max(E+, E-) + (1 - b*) TV(r', r*),

    no more than E |a' - a*| + (1 - b*) TV(r', r*). On the set where a' > a*, where p = q a*, at least q a' is emitted:

        TV >= E+, whatever r' is.

    On the set where a' < a* < 1, where p = q a* again, at most q a' and what is replaced there is emitted, so

        TV >= E (a* - a')+ 1{a* < 1} - P(refused, and replaced by a value where p < q),

    and of these values a right residual has none. So TV = max(E+, E-) where r' = r* and a' = 1 wherever p >= q. The
    deficit E_p (1 - w)+, w = out / p, is the same number only with r' at its
    true weight 1 - b'; with 1 - b* in its place w does not integrate to 1, and a rule that accepts too often by 2 %
    seems exact. Here neither weight is needed.

    ``bound`` is the upper one with ``residual`` for TV(r', r*), 1 unless it is known better; ``lower`` the larger of
    the lower ones; all are empirical Bernstein bounds, together at confidence 1 - ``delta``. ``statistic`` is the mean
    |a' - a*|. A bias of ``smallest`` that is E+ has a positive lower bound nine times in ten.
    """

    residual: float = 1.0
    delta: float = 1e-6
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="a wrong acceptance, down to the rounding of its arithmetic, at any dimension",
        blind_to="residuals, bonus tokens, and coins that do not follow the probability that is stated",
    )

    @property
    def statistic(self) -> AcceptanceDifference:
        return AcceptanceDifference()

    def lower(self, tally: Differences) -> float:
        """A lower bound on the total variation."""
        n, share = max(tally.n, 1), self.delta / SHARES
        over = tally.over / n - margin(tally.over, tally.over_square, tally.n, share)
        inner = tally.inner / n - margin(tally.inner, tally.inner_square, tally.n, share)
        return max(0.0, over, inner - upper(tally.astray, tally.n, share))

    def judge(self, tally: Differences, alpha: float) -> Finding:
        n, share = tally.n, self.delta / SHARES
        means = [part / n if n else 1.0 for part in (tally.over, tally.under, tally.refused)]
        over = means[0] + margin(tally.over, tally.over_square, n, share)
        under = means[1] + margin(tally.under, tally.under_square, n, share)
        refused = min(1.0, means[2] + margin(tally.refused, tally.refused_square, n, share))
        level = math.log(2 / share)
        # Mean m and variance at most m: sqrt(m) solves m = rate sqrt(m) + floor.
        rate, floor = (BETTER + math.sqrt(2 * level)) / math.sqrt(max(n, 1)), 7 * level / (3 * max(n - 1, 1))
        note = f"E|a' - a*| {means[0] + means[1]:.3g}, at most {tally.largest.value:.3g}; "
        note += f"TV >= {self.lower(tally):.3g} by the acceptance alone"
        return Finding(
            verifier="",
            scenario="",
            check="white_box",
            statistic=means[0] + means[1],
            p_value=None,
            alpha=alpha,
            n=n,
            seed=0,
            note=note,
            metric="tv",
            bound=min(1.0, max(over, under) + refused * self.residual),
            smallest=min(1.0, ((rate + math.sqrt(rate**2 + 4 * floor)) / 2) ** 2),
        )
