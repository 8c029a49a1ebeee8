"""Dependence between the rows of one call: a shared coin, shared noise, one row copied to another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.stats import binom, chi2, f, norm
from torch import Tensor

from distributions.tape import Tape
from verify.checks import Check, Tally
from verify.checks.support import resolution
from verify.records import CheckClaim, Finding
from verify.statistics.trace import Trace, same
from verify.statistics.transform import uniforms

SMALL_CALL = 64
"""Calls of at most this many rows are searched for repeated rows, where chance gives none."""
LARGE_CALL = 24
"""Calls of at least this many rows are compared with each other."""


def call_sums(features: Tensor, call: Tensor) -> Tensor:
    """The sum of ``features`` (n, m) over each call, divided by the root of its rows: (calls, m), variance 1."""
    size = torch.bincount(call).double()
    total = torch.zeros(len(size), features.shape[-1]).double().index_add_(0, call, features)
    return total / size.sqrt().unsqueeze(-1)


@dataclass(frozen=True, eq=False)
class CallSums(Tally):
    """What the four tests of ``RowDependence`` need, of the m columns u - 1/2 of the transform and of rows kept.

    ``first``, ``second`` (m,): sums and squares over rows; ``joined``: pairs of neighbours in a call, ``products`` and
    ``sides`` (m,) the sums of their products and of both their values. Of the large calls alone: how many ``calls``,
    and ``rows`` in them; sums and squares ``inner`` (2, m) over these rows; ``between`` (m,), the squared sum of each
    call over its rows. Of the first coins there: sums ``coins`` of their departure from the recorded probability a,
    ``spread`` of a (1 - a), and ``between_coins`` of each call's squared sum over its spread; where nothing was
    ``recorded``, of rows kept, of 1, and accordingly. Of the small calls: how many, ``few``, those ``copied`` in which
    a row is repeated, and the sum of the ``chance`` of that.
    """

    first: Tensor
    second: Tensor
    joined: int
    products: Tensor
    sides: Tensor
    calls: int
    rows: int
    inner: Tensor
    between: Tensor
    coins: float
    spread: float
    between_coins: float
    recorded: int
    few: int
    copied: int
    chance: float


@dataclass(frozen=True)
class RowSums:
    """The first tokens of a trace by call. Adds over whole calls; copies are compared within a shard."""

    def __call__(self, sample: Trace, truth: Any, tape: Tape) -> CallSums:
        value, call = sample.emitted[:, 0], sample.call
        columns = uniforms(value, sample.target[:, 0], tape).reshape(len(sample), -1) - 0.5
        size = torch.bincount(call)
        joined = call[1:] == call[:-1]
        large = size >= LARGE_CALL
        inside = large[call]
        sums = torch.zeros(len(size), columns.shape[1], dtype=torch.float64).index_add_(0, call, columns)
        coins, spread = same(value, sample.drafted[:, 0]).double(), torch.ones(len(sample), dtype=torch.float64)
        if sample.log_accept is not None:
            chance = sample.log_accept[:, 0].double().exp()
            coins, spread = sample.kept[:, 0].double() - chance, chance * (1 - chance)
        by_call = [torch.bincount(call, weights=part, minlength=len(size))[large] for part in (coins, spread)]
        weight = torch.where(large, 1.0 / size, 0.0).double()
        few, copied, likely = _copies(value, call, size)
        return CallSums(
            n=len(sample),
            first=columns.sum(0),
            second=columns.square().sum(0),
            joined=int(joined.sum()),
            products=(columns[1:] * columns[:-1])[joined].sum(0),
            sides=(columns[1:] + columns[:-1])[joined].sum(0),
            calls=int(large.sum()),
            rows=int(inside.sum()),
            inner=torch.stack((columns[inside].sum(0), columns[inside].square().sum(0))),
            between=weight @ sums.square(),
            coins=float(by_call[0].sum()),
            spread=float(by_call[1].sum()),
            between_coins=float((by_call[0].square() / by_call[1].clamp(min=1e-300)).sum()),
            recorded=len(sample) if sample.log_accept is not None else 0,
            few=few,
            copied=copied,
            chance=likely,
        )


@dataclass(frozen=True)
class RowDependence(Check):
    """Four tests that the rows of a call are independent, Bonferroni over all; a wrong law of single rows is no reason
    for them to reject.

    On the columns of the probability integral transform of the first token, centred on their own means: *neighbours*,
    the lag-one correlation within calls, normal; *levels*, one-way analysis of variance between the large calls, those
    of 24 rows and more. *Coins*, the same of the first node's coin, less its recorded probability, chi-square; where
    there is no record, homogeneity of the accepted fraction (output equals draft), Pearson's chi-square, which wants
    calls on the same laws. *Copies*, small calls with a row that occurs twice and in no other call of the shard,
    against a binomial law whose success probability is the chance of that in single precision.
    """

    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="a coin or a residual shared by the rows of a batch, rows copied to others",
        blind_to="dependence between calls, and between distant rows where it leaves their mean alone",
    )

    @property
    def statistic(self) -> RowSums:
        return RowSums()

    def judge(self, tally: CallSums, alpha: float) -> Finding:
        tests = {
            "neighbouring rows": _neighbours(tally),
            "levels of whole calls": _levels(tally),
            "acceptance of whole calls": _coins(tally),
            "rows copied within a call": _copied(tally),
        }
        worst = min(tests, key=lambda name: tests[name])
        bar = float(norm.isf(alpha / (2 * len(tests) * len(tally.first))) + norm.ppf(0.9))
        return Finding(
            verifier="",
            scenario="",
            check="row_dependence",
            statistic=-math.log10(max(tests[worst], 1e-300)),
            p_value=min(1.0, len(tests) * tests[worst]),
            alpha=alpha,
            n=tally.n,
            seed=0,
            note=worst,
            metric="correlation of neighbouring rows",
            smallest=bar / math.sqrt(max(1, tally.joined)),
        )


def _neighbours(tally: CallSums) -> float:
    mean = tally.first / tally.n
    spread = tally.second / tally.n - mean.square()
    if tally.joined < 100 or not bool((spread > 0).all()):
        return 1.0
    product = tally.products - mean * tally.sides + tally.joined * mean.square()
    score = product.abs() / (spread * math.sqrt(tally.joined))
    return min(1.0, 2 * len(mean) * float(norm.sf(float(score.max()))))


def _levels(tally: CallSums) -> float:
    groups, n = tally.calls, tally.rows
    if groups < 2:
        return 1.0
    total, squares = tally.inner
    within = squares - tally.between
    if not bool((within > 0).all()):
        return 1.0
    ratio = (tally.between - total.square() / n) / (groups - 1) / (within / (n - groups))
    return min(1.0, len(total) * float(f.sf(float(ratio.max()), groups - 1, n - groups)))


def _coins(tally: CallSums) -> float:
    share = 0.0 if tally.recorded else tally.coins / max(1.0, tally.spread)
    unit = 1.0 if tally.recorded else share * (1 - share)
    # Where a call's coins vary little the chi-square law does not hold, and there is little to be learnt.
    if tally.calls < 2 or tally.spread * unit / tally.calls < 10:
        return 1.0
    square = (tally.between_coins - tally.coins**2 / tally.spread) / unit
    return float(chi2.sf(square, tally.calls - 1))


def _copied(tally: CallSums) -> float:
    if not tally.few:
        return 1.0
    return float(binom.sf(tally.copied - 1, tally.few, min(1.0, tally.chance / tally.few)))


def _copies(sample: Tensor, call: Tensor, size: Tensor) -> tuple[int, int, float]:
    """The small calls, those of them with a row that occurs twice, and the sum of their chances."""
    few = (size > 1) & (size <= SMALL_CALL)
    if not sample.is_floating_point() or not bool(few.any()):
        return 0, 0, 0.0
    rows = few[call]
    values = sample[rows].reshape(int(rows.sum()), -1).double()
    tagged = torch.cat((values, call[rows].unsqueeze(-1).double()), -1).numpy()
    places, counts = np.unique(tagged, axis=0, return_counts=True)
    _, which, calls = np.unique(places[:, :-1], axis=0, return_inverse=True, return_counts=True)
    # A value that several calls return is an atom, which is a matter of the law of single rows.
    with_copies = len(np.unique(places[(counts > 1) & (calls[which] == 1), -1]))
    chance = (size[few] * (size[few] - 1)).double() / 2 * resolution(sample)
    return int(few.sum()), with_copies, float(chance.clamp(max=1).sum())
