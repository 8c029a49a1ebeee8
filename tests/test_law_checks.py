"""Checks against a known law: their size, bounds that hold, and shards that add up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from distributions.gaussian import Gaussian
from distributions.tape import GeneratorTape
from tests.chance import TAIL, at_least, at_most
from tests.law_checks_under_test import RHO, SHIFT, WORDS, Draw, distances, normal, spoken
from verify.checks import Check
from verify.checks.anderson_darling import AndersonDarling
from verify.checks.chi_square import ChiSquare
from verify.checks.cramer_von_mises import CramerVonMises
from verify.checks.ks import KolmogorovSmirnov
from verify.checks.lags import Lags
from verify.checks.neyman import Neyman
from verify.checks.pooled_products import PooledProducts
from verify.checks.products import Products
from verify.checks.projections import Projections
from verify.checks.radius import Radius
from verify.checks.surprisal import Surprisal
from verify.engine import count, merge
from verify.statistics.histogram import Histogram


@dataclass(frozen=True)
class Null:
    """A sample of a truth, and checks that share its passes: sharp ones, which must use their level, and others."""

    draw: Draw
    truth: Any
    sharp: tuple[Check, ...]
    others: tuple[Check, ...] = ()


NULLS = {
    "line": Null(
        lambda tape: tape.normal("z", (400, 1)),
        normal(),
        (AndersonDarling(12), CramerVonMises(bits=12), Neyman(bits=12), ChiSquare(64, bits=12)),
        (KolmogorovSmirnov(bits=12),),
    ),
    "vector": Null(
        lambda tape: tape.normal("z", (800, 4)),
        normal(4),
        (Neyman(bits=10), PooledProducts(), Radius(bits=10), AndersonDarling(10)),
        (Products(), Projections(bits=10, directions=12)),
    ),
    "sequence": Null(lambda tape: tape.normal("z", (150, 12)), normal(12), (Lags(2, 2), Lags(width=3))),
    "tokens": Null(lambda tape: spoken(tape, 80, 4), WORDS, (Surprisal(), Neyman(bits=10)), (Lags(),)),
    "a token": Null(
        lambda tape: WORDS.rows[-1][None][torch.zeros(600, dtype=torch.long)].sample(tape, "token"),
        WORDS.rows[-1],
        (ChiSquare(bits=8), CramerVonMises(bits=8)),
    ),
}


@cache
def null_p_values(name: str, runs: int, seed: int) -> dict[Check, np.ndarray]:
    null, tape = NULLS[name], GeneratorTape(seed)
    checks = null.sharp + null.others
    statistics = dict.fromkeys(check.statistic for check in checks)
    found: dict[Check, list[float]] = {check: [] for check in checks}
    for _ in range(runs):
        sample = null.draw(tape)
        tallies = {statistic: statistic(sample, null.truth, tape) for statistic in statistics}
        for check in checks:
            found[check].append(check.judge(tallies[check.statistic], 0.01).p_value or 0.0)
    return {check: np.array(values) for check, values in found.items()}


def sizes_hold(name: str, runs: int, seed: int) -> None:
    for check, found in null_p_values(name, runs, seed).items():
        for level in (1e-2, 1e-3):
            assert (found <= level).sum() <= at_most(level, runs), (check, level, (found <= level).mean())
        if check in NULLS[name].sharp:
            assert (found <= 0.05).sum() >= at_least(0.02, runs), (check, (found <= 0.05).mean())


@pytest.mark.parametrize("name", NULLS)
def test_size(name: str) -> None:
    """2000 samples of the null: more than 44 rejections at 1e-2, or 12 at 1e-3, have probability 1e-6 at these sizes;
    so have fewer than 14 at 0.05 of a sharp check whose size there is 0.02 or more.
    """
    sizes_hold(name, 2000, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NULLS)
def test_size_in_ten_thousand_samples(name: str) -> None:
    """More than 151 rejections at 1e-2, or 28 at 1e-3, have probability 1e-6; so have fewer than 137 at 0.05."""
    sizes_hold(name, 10_000, 2)


def test_p_values_of_the_integrals_are_uniform() -> None:
    """And at every level: Kolmogorov-Smirnov of 2000 p-values against U(0, 1), false alarm 1e-6 each."""
    for check, found in null_p_values("line", 2000, 1).items():
        if isinstance(check, (AndersonDarling, CramerVonMises, Neyman)):
            assert stats.kstest(found, "uniform").pvalue > TAIL


def test_a_shifted_sample_fails_the_test_of_size() -> None:
    """The size test has teeth: with a bias of 0.15 standard deviations the line's checks reject too often."""
    biased = {**NULLS, "line": Null(lambda tape: tape.normal("z", (400, 1)) + 0.15, normal(), NULLS["line"].sharp)}
    tape = GeneratorTape(4)
    for check in biased["line"].sharp:
        hits = sum(check(biased["line"].draw(tape), normal(), 0.01, tape).rejects for _ in range(200))
        assert hits > at_most(0.01, 200)


@pytest.mark.parametrize(
    "check",
    [KolmogorovSmirnov(0.05), CramerVonMises(0.05), Neyman(4, 0.05), ChiSquare(4, 0.05), Products(0.05)],
    ids=lambda check: type(check).__name__,
)
def test_bounds_hold(check: Check) -> None:
    """Confidence 0.95 on a true distance: more than 44 misses of 400 have probability 1e-6. Without the margin of a
    bound its estimate would miss far more often.
    """
    tape, n, misses, bare = GeneratorTape(10), 1500, 0, 0
    ranges = {"Neyman": 1.01 * 2 * math.sqrt(10), "Products": 2 * math.sqrt(15)}
    margin = math.sqrt(math.log(1 / 0.05) / (2 * n)) * ranges.get(type(check).__name__, 1.0)
    for _ in range(400):
        z = tape.normal("z", (n, 2))
        z[:, 1] = RHO * z[:, 0] + math.sqrt(1 - RHO**2) * z[:, 1]
        sample = z if isinstance(check, Products) else z[:, :1] + SHIFT
        found = check(sample, normal(sample.shape[1]), 0.01, tape)
        assert found.bound is not None
        truth = distances(SHIFT)[found.metric]
        misses += found.bound < truth
        bare += found.bound - margin < truth - (2.0**-16 if isinstance(check, KolmogorovSmirnov) else 0)
    assert misses <= at_most(0.05, 400)
    assert bare > at_most(0.05, 400)


def line(shard: int) -> tuple[Tensor, Gaussian]:
    return GeneratorTape(shard).normal("z", (3000 + shard, 4)), normal(4)


def test_counts_of_shards_are_those_of_the_whole() -> None:
    """Integers exactly, sums to rounding."""
    checks: list[Check] = [KolmogorovSmirnov(), AndersonDarling(), Projections(), Radius(), Products(), Lags(2)]
    parts = [count((check.statistic for check in checks), line, shard) for shard in range(3)]
    whole = torch.cat([line(shard)[0] for shard in range(3)])
    merged = merge(merge(parts[0], parts[1]), parts[2])
    assert len(merged) == 5  # the integrals share one pass
    for check in checks:
        tally, other = merged[check.statistic], check.statistic(whole, normal(4), GeneratorTape())
        if isinstance(tally, Histogram) and isinstance(other, Histogram):
            moved = (tally.counts - other.counts).abs().sum()  # a projection may round across an edge
            assert int(moved) <= (4 if isinstance(check, Projections) else 0)
            assert int(tally.counts.sum()) == int(other.counts.sum())
        found, wanted = check.judge(tally, 0.01), check.judge(other, 0.01)
        assert found.n == wanted.n == len(whole) and found.statistic == pytest.approx(wanted.statistic, rel=1e-4)
