"""A bet against exactness that may be looked at after every shard: its wealth is an e-value at any time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.special import ndtr

from distributions.law import Law
from distributions.tape import Tape
from verify.checks import Check, Tally
from verify.records import CheckClaim, Finding
from verify.statistics.learned import Learner
from verify.statistics.pairs import pilot, typical
from verify.statistics.transform import blocks, uniforms

BLOCK = 8192
"""Rows whose features are held at once."""


@dataclass(frozen=True, eq=False)
class Bets(Tally):
    """``sums`` and ``squares`` (features,): of every feature, whose values lie in [-1, 1], and of its square."""

    sums: Tensor
    squares: Tensor


@dataclass(frozen=True)
class BoundedFeatures:
    """Legendre polynomials P_1 .. P_degrees of every column in [0, 1], and for every two columns the products of those
    of degree 1 and 2: all within [-1, 1], all of mean 0 where the columns are independent uniforms.

    Against a law the columns are its transform. Against draws of a second sampler (a tensor) they are
    Phi((x - centre) / spread), and the feature is half the difference f(x) - f(y) of a row of each, which has mean 0
    where both have one law, whatever it is; ``centre`` and ``spread`` come from a pilot, or are 0 and 1. Without
    ``pairs`` the columns need not be independent of one another.
    """

    degrees: int = 4
    centre: tuple[float, ...] = (0.0,)
    spread: tuple[float, ...] = (1.0,)
    pairs: bool = True

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> Bets:
        if isinstance(truth, Tensor):
            sides = (torch.split(self._squashed(side), BLOCK) for side in (sample, truth))
            parts = [self._count(*both) for both in zip(*sides, strict=True)]
        else:
            # What is not a number is no bet won: it has a check of its own.
            parts = [self._count(part.nan_to_num(0.0)) for _, part in blocks(uniforms, sample, truth, tape)]
        sums, squares = (torch.stack(part).sum(0) for part in zip(*parts, strict=True))
        return Bets(len(sample), sums, squares)

    def _squashed(self, side: Tensor) -> Tensor:
        flat = side.double().reshape(len(side), -1)
        level: Tensor = ndtr((flat - torch.tensor(self.centre).double()) / torch.tensor(self.spread).double())
        return level.nan_to_num(0.0)

    def _count(self, *columns: Tensor) -> tuple[Tensor, Tensor]:
        """Sums and squares of one block, given once or for each of two samples."""
        features = [polynomials(part, self.degrees) for part in columns]
        if not self.pairs:
            own = features[0] if len(features) == 1 else (features[0] - features[1]) / 2
            return own.sum(0), own.square().sum(0)
        low = [part[:, : 2 * columns[0].shape[1]] for part in features]
        first, second = _pairs(columns[0].shape[1])
        if len(features) == 1:
            own, (own_low,) = features[0], low
            products, powers = own_low.T @ own_low, own_low.square().T @ own_low.square()
        else:
            own = (features[0] - features[1]) / 2
            products = (low[0].T @ low[0] - low[1].T @ low[1]) / 2
            # (a - b)^2 / 4 summed over rows, where a and b are products of two features: all three terms are Grams.
            squared, crossed = [part.square() for part in low], low[0] * low[1]
            powers = (squared[0].T @ squared[0] + squared[1].T @ squared[1] - 2 * crossed.T @ crossed) / 4
        sums = torch.cat((own.sum(0), products[first, second]))
        return sums, torch.cat((own.square().sum(0), powers[first, second]))


def polynomials(columns: Tensor, degrees: int) -> Tensor:
    """Shifted Legendre polynomials (n, degrees m) of columns (n, m): degree by degree, size at most 1, integral 0."""
    point = 2 * columns - 1
    found = [torch.ones_like(point), point]
    for degree in range(1, degrees):
        found.append(((2 * degree + 1) * point * found[-1] - degree * found[-2]) / (degree + 1))
    return torch.cat(found[1 : degrees + 1], -1)


def _pairs(width: int) -> tuple[Tensor, Tensor]:
    """The places, among the 2 m features of degree 1 and 2, of every two that belong to different columns."""
    first, second = torch.triu_indices(2 * width, 2 * width, 1)
    apart = (first % width) != (second % width)
    return first[apart], second[apart]


def radius(n: int, delta: float, deviation: float, tuned: float = 1000.0) -> float:
    """r(n) such that P(some n: mean of n independent units > expectation + r(n)) <= ``delta``, for units whose
    exponential moments are below a normal's of standard ``deviation`` (half the range of a bounded unit: Hoeffding).

    Robbins (Annals of Mathematical Statistics 41, 1970), one-sided as in Howard et al. (Annals of Statistics 49, 2021):
    with v = n deviation^2 and a half-normal mixture over the stake, of precision rho, the wealth is
    2 sqrt(rho / (v + rho)) exp(z^2 / 2) Phi(z), z = sum / sqrt(v + rho); as 2 (1 - Phi(z)) exp(z^2 / 2) <= 1, it
    exceeds 1 / delta once z^2 / 2 >= ln((1 + sqrt((v + rho) / rho) / delta) / 2). ``tuned``: the units that rho equals.
    """
    variance, prior = n * deviation**2, tuned * deviation**2
    level = math.log((1 + math.sqrt((variance + prior) / prior) / delta) / 2)
    return math.sqrt(2 * (variance + prior) * level) / n


@dataclass(frozen=True)
class Betting(Check):
    """A mixture of bets on every feature f and stake: e = mean over f, sign and size of exp(s S - psi(s) V), with
    S = sum of +-f, V = sum of f^2, psi(s) = -ln(1 - s) - s.

    Each factor has expectation at most one, since exp(s y - psi(s) y^2) <= 1 + s y for y >= -1 and 0 <= s < 1 (Fan,
    Grama and Liu 2015, Lemma 4.1) and f has mean 0: so e is a nonnegative supermartingale that starts at 1, and
    P(e >= 1/alpha at any time) <= alpha (Ville 1939). p-value min(1, 1/e) of what was counted *so far*: valid whenever
    one chooses to stop, as shards are merged in order. The largest e so far would be valid as well, but it depends on
    the order, so it does not merge; who looks repeatedly may keep it. S and V add, as ln prod(1 + s f) does, at
    2 numbers a feature in place of one a bet; what it loses is of third order in the stake. The sizes are
    2^-1, 2^-1.5, .. 2^-16, as good up to 1e10 rows.

    ``bound``: the largest |E f| is at most the largest mean plus ``radius``, at confidence 1 - ``delta`` at *all*
    times at once: the feature and sign that depart most are fixed by the truth, so one sequence of means is enough.
    ``between`` two samplers, sizes are of the whole difference E f(x) - E f(y), not of its half.
    """

    degrees: int = 4
    centre: tuple[float, ...] = (0.0,)
    spread: tuple[float, ...] = (1.0,)
    pairs: bool = True
    between: bool = False
    delta: float = 1e-6
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="smooth changes of a column or of two jointly, at any time it is looked at",
        blind_to="narrow bumps, dependence among three or more columns or between rows",
    )

    @property
    def statistic(self) -> BoundedFeatures:
        return BoundedFeatures(self.degrees, self.centre, self.spread, self.pairs)

    def judge(self, tally: Bets, alpha: float) -> Finding:
        n, features = tally.n, len(tally.sums)
        width = _width(features, self.degrees) if self.pairs else features // self.degrees
        sizes = 2.0 ** -torch.arange(1, 16.25, 0.5, dtype=torch.float64)
        cost = (-torch.log1p(-sizes) - sizes) * tally.squares.unsqueeze(-1)
        gain = sizes * tally.sums.unsqueeze(-1)
        wealth = torch.logsumexp(torch.cat((gain - cost, -gain - cost), -1), -1) - math.log(2 * len(sizes))
        # Half of the money on the columns, half on their pairs: many coordinates do not drown a shift of one.
        columns, pairs = wealth[: self.degrees * width], wealth[self.degrees * width :]
        shares = [torch.logsumexp(part, 0) - math.log(len(part)) for part in (columns, pairs) if len(part)]
        log_e = float(torch.logsumexp(torch.stack(shares), 0)) - math.log(len(shares))
        means, whole = tally.sums.abs() / n, 2.0 if self.between else 1.0
        worst = int(means.argmax())
        deviation = math.sqrt(float(tally.squares.max()) / n)
        bets = 2 * len(sizes) * len(shares) * max(len(columns), len(pairs))
        return Finding(
            verifier="",
            scenario="",
            check="betting",
            statistic=whole * float(means[worst]),
            p_value=min(1.0, math.exp(-max(0.0, log_e))),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"e-value 10^{log_e / math.log(10):.1f}; {_name(worst, width, self.degrees)} departs most",
            metric="feature mean",
            bound=min(whole, whole * (float(means[worst]) + radius(n, self.delta, 1.0))),
            # The best stake earns z^2 / 2, z the standard score of the sum, and its share of the money is one bet's.
            smallest=whole * (math.sqrt(2 * math.log(bets / alpha)) + 1.2816) * deviation / math.sqrt(n),
        )


@dataclass(frozen=True)
class BettingBetween(Learner):
    """The bets between two samplers: the middle and the scale of each coordinate come from the pilot."""

    def fit(self, sample: Tensor, truth: Tensor | Law, tape: Tape) -> Betting:
        middle, scale = typical(torch.cat(pilot(sample, truth, tape, 16)))
        return Betting(centre=tuple(middle.tolist()), spread=tuple(scale.tolist()), between=True)


def _width(features: int, degrees: int) -> int:
    """The number m of columns with degrees m + 2 m (m - 1) features."""
    slope = degrees - 2
    return round((-slope + math.sqrt(slope**2 + 8 * features)) / 4)


def _name(feature: int, width: int, degrees: int) -> str:
    if feature < degrees * width:
        return f"degree {feature // width + 1} of column {feature % width}"
    first, second = (int(part[feature - degrees * width]) for part in _pairs(width))
    left, right = f"{first // width + 1} of column {first % width}", f"{second // width + 1} of column {second % width}"
    return f"the product of degree {left} and degree {right}"
