"""Checks against a known law: size, agreement with scipy and with quadrature, bounds, power, and the transform.

Where not said otherwise an assertion on a count of runs fails by chance with probability 1e-6 (a binomial quantile).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor

from distributions.autoregressive import LinearGaussianAR, Markov
from distributions.categorical import Categorical
from distributions.flow import FlowLaw
from distributions.gaussian import FullGaussian, Gaussian
from distributions.mixture import Mixture
from distributions.path import PathLaw
from distributions.reversal import Reversal
from distributions.schedule import cosine
from distributions.sequence import TokenSequence
from distributions.tape import GeneratorTape
from tests.ladder_models import head, normal_data
from verify.checks import Check
from verify.checks.anderson_darling import AndersonDarling
from verify.checks.chi_square import ChiSquare
from verify.checks.cramer_von_mises import CramerVonMises
from verify.checks.ks import KolmogorovSmirnov
from verify.checks.lags import Lags
from verify.checks.neyman import Neyman, polynomials
from verify.checks.pooled_products import PooledProducts
from verify.checks.products import Products
from verify.checks.projections import Projections
from verify.checks.radius import Radius
from verify.checks.surprisal import Surprisal
from verify.engine import count, merge
from verify.records import Finding
from verify.statistics.bridge import ANDERSON_DARLING, CRAMER_VON_MISES, Integral
from verify.statistics.histogram import Histogram, TransformHistogram
from verify.statistics.transform import Uniform, scores, tails, uniforms

TAIL = 1e-6
Draw = Callable[[GeneratorTape], Tensor]


def normal(dim: int = 1) -> Gaussian:
    return Gaussian(torch.zeros(dim), torch.ones(dim))


def at_most(level: float, runs: int) -> int:
    return int(stats.binom.isf(TAIL, runs, level))


def at_least(power: float, runs: int) -> int:
    return int(stats.binom.ppf(TAIL, runs, power))


def chains(rho: float, length: int = 8, width: int = 2) -> FullGaussian:
    """Independent stationary autoregressions of order 1, N(0, 1) at every place; tokens of ``width`` numbers."""
    apart = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    factor = np.kron(np.linalg.cholesky(rho**apart), np.eye(width))
    return FullGaussian(torch.zeros(length * width), torch.as_tensor(factor))


CHAIN = LinearGaussianAR(
    torch.tensor([[[0.5, 0.2], [0.0, 0.3]], [[-0.3, 0.0], [0.1, 0.1]]]), torch.ones(2), torch.ones(2)
)
WORDS = Markov.random(5, 1, 3)


# --- size ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Null:
    """A sample of a truth, and checks that share its passes: sharp ones, which must use their level, and others."""

    draw: Draw
    truth: Any
    sharp: tuple[Check, ...]
    others: tuple[Check, ...] = ()


def spoken(tape: GeneratorTape, rows: int, length: int) -> Tensor:
    """Sequences of WORDS."""
    state, tokens = WORDS.start(rows), []
    for place in range(length):
        tokens.append(WORDS.law(state).sample(tape, f"token.{place}"))
        state = WORDS.extend(state, tokens[-1], torch.ones(rows, dtype=torch.long))
    return torch.cat(tokens, 1)


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


# --- the laws of the integrals ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("law, total", [(ANDERSON_DARLING, 1.0), (CRAMER_VON_MISES, 1 / 6)], ids=["ad", "cvm"])
def test_law_of_the_integral_by_inversion(law: Integral, total: float) -> None:
    """Imhof (Biometrika 48, 1961): P(X > x) = 1/2 + (1/pi) int sin(theta) / (u rho) du, with the first 1000 weights and
    the others by their mean (their standard deviation is below 1e-4). ``total``: the mean of X; its variance is 2
    sum w^2.
    """
    weights = 0.5 / law.zeros(np.arange(1.0, 1001.0))
    rest, most = total - weights.sum(), 80 * weights[0]
    node, share = np.polynomial.legendre.leggauss(20)
    ends = np.linspace(0, (250 / weights[0]) ** 0.5, 61) ** 2
    half = (ends[1:] - ends[:-1])[:, None] / 2
    u, du = (ends[:-1, None] + half * (1 + node)).ravel(), (half * share).ravel()
    theta = 0.5 * np.arctan(np.outer(u, weights)).sum(1) + 0.5 * u * rest
    rho = np.exp(0.25 * np.log1p(np.outer(u, weights) ** 2).sum(1))
    for x in np.array([0.2, 0.5, 1.0, 2.0, 5.0]) * 2 * weights[0]:
        inverted = 0.5 + float((np.sin(theta - 0.5 * u * x) / (u * rho)) @ du) / math.pi
        assert law.sf(x) == pytest.approx(inverted, abs=1e-8)
    most = 80 * weights[0]
    mean, _ = integrate.quad(law.sf, 0, most, limit=400)
    square, _ = integrate.quad(lambda x: 2 * x * law.sf(x), 0, most, limit=400)
    assert mean == pytest.approx(total, abs=1e-6)
    assert square - mean**2 == pytest.approx(2 * (weights**2).sum(), abs=1e-6)
    for level in (0.5, 1e-3, 1e-9, 1e-100):
        assert law.sf(law.isf(level)) == pytest.approx(level, rel=1e-9, abs=0)
    assert law.sf(law.least / 2) == 1.0 and 1 - law.sf(law.least * 1.0001) < 1e-6


def test_known_quantiles_of_anderson_darling() -> None:
    """Of the case of a law known in full: Stephens (JASA 69, 1974), table 1, three decimals."""
    for quantile, level in ((1.933, 0.1), (2.492, 0.05), (3.070, 0.025), (3.857, 0.01)):
        assert ANDERSON_DARLING.sf(quantile) == pytest.approx(level, rel=0.03)
    # Marsaglia and Marsaglia (Journal of Statistical Software 9, 2004): a short approximation, 2e-5 off at most.
    low = np.polynomial.Polynomial([2.00012, 0.247105, -0.0649821, 0.0347962, -0.011672, 0.00168691])
    high = np.polynomial.Polynomial([1.0776, -2.30695, 0.43424, -0.082433, 0.008056, -0.0003146])
    for x in np.linspace(0.1, 7, 70):
        below = math.exp(-1.2337141 / x) / math.sqrt(x) * low(x) if x < 2 else math.exp(-math.exp(high(x)))
        assert 1 - ANDERSON_DARLING.sf(float(x)) == pytest.approx(below, abs=2e-5)


# --- statistics ------------------------------------------------------------------------------------------------------
def anderson_darling_of(z: np.ndarray) -> float:
    """The statistic of normal scores by its definition, with the logarithms of both tails."""
    z, n = np.sort(z), len(z)
    return float(-n - np.mean((2 * np.arange(1, n + 1) - 1) * (special.log_ndtr(z) + special.log_ndtr(-z[::-1]))))


@pytest.mark.parametrize("n", [100, 3000, 100_000])
def test_statistics_agree_with_scipy_and_with_their_definitions(n: int) -> None:
    """From 2^16 cells, within what the docstrings state: 8 standard deviations of 20 samples each; exactly for KS."""
    tape, step = GeneratorTape(n), 2.0**-16
    for turn in range(20):
        z = tape.normal("z", (n, 1)) + (0.1 if turn % 2 else 0.0) * n**-0.5
        tally = TransformHistogram()(z, normal(), tape)
        ks, ad, cvm, fine = (
            check.judge(tally, 0.01)
            for check in (KolmogorovSmirnov(), AndersonDarling(), CramerVonMises(), ChiSquare(4))
        )
        exact = stats.kstest(z[:, 0], "norm")
        assert ks.statistic <= exact.statistic <= ks.statistic + step
        assert ks.p_value is not None and ks.p_value >= exact.pvalue * 0.99  # DKW is conservative
        assert ad.statistic == pytest.approx(anderson_darling_of(z[:, 0].numpy()), abs=8 * 1.1e-4)
        reference = stats.cramervonmises(z[:, 0], "norm")
        assert cvm.statistic == pytest.approx(reference.statistic, abs=8 * step)
        assert cvm.p_value == pytest.approx(reference.pvalue, abs=0.3 / n + 1e-4)  # scipy has a term in 1 / n
        cells = np.histogram(special.ndtr(z.numpy()), 4, (0, 1))[0]
        assert fine.p_value == pytest.approx(stats.chisquare(cells).pvalue, rel=1e-9)


def test_both_tails_are_counted_from_their_own_end() -> None:
    """Outliers 9 standard deviations out, where 1 - u is 0 in floats: either side weighs the same, and as exactly."""
    body = torch.as_tensor(special.ndtri((np.arange(200) + 0.5) / 200)).unsqueeze(-1)
    for far in (5.0, 7.0, 9.0):
        found = []
        for side in (-far, far):
            z = torch.cat((body, torch.full((20, 1), side).double()))
            found.append(AndersonDarling()(z, normal(), 0.01, GeneratorTape()).statistic)
            # Half an octave, 0.35 nats, of the 15 that the nearest outliers have; half of that on this sample.
            assert found[-1] == pytest.approx(anderson_darling_of(z[:, 0].numpy()), rel=0.02)
        assert found[0] == pytest.approx(found[1], rel=1e-6)
    column = tails(torch.tensor([[-30.0], [-1.0], [0.0], [1.0], [9.0], [60.0]]), normal(), GeneratorTape())[:, 0]
    assert torch.allclose(column[[0, 1, 3, 4]].double(), torch.as_tensor(
        [special.ndtr(-30.0), special.ndtr(-1.0), -special.ndtr(-1.0), -special.ndtr(-9.0)]
    ), rtol=1e-12, atol=0)  # fmt: skip
    assert float(column[5]) < 0  # beyond the smallest number, and still on its side
    ends = TransformHistogram(4)(torch.tensor([[-60.0], [60.0], [torch.nan]]), normal(), GeneratorTape())
    assert ends.counts[0].tolist() == [2, *[0] * 14, 1] and ends.tails[0, :, -1].tolist() == [1, 1]
    uneven = TransformHistogram(4)(torch.tensor([[-60.0], [-50.0], [60.0]]), normal(), GeneratorTape())
    assert uneven.tails[0, :, -1].tolist() == [2, 1]
    sides = TransformHistogram(4)(torch.tensor([[0.0], [1.0]]), Uniform(), GeneratorTape())
    assert sides.counts[0, [0, -1]].tolist() == [1, 1]


def test_neyman_is_the_legendre_sums() -> None:
    """Against the polynomials evaluated at the sample: the grid moves a mean by 1e-3 of its standard deviation."""
    u = GeneratorTape(5).uniform("u", (50_000, 1)) ** 1.02
    features = np.stack([special.eval_legendre(j, 2 * u[:, 0].numpy() - 1) * math.sqrt(2 * j + 1) for j in range(1, 5)])
    wanted = 50_000 * float((features.mean(1) ** 2).sum())
    found = Neyman()(u, Uniform(), 0.01, GeneratorTape())
    assert found.statistic == pytest.approx(wanted, rel=2e-3)
    assert found.p_value == pytest.approx(stats.chi2.sf(wanted, 4), rel=0.05)
    three = GeneratorTape(6).uniform("u", (5000, 3)) ** 1.02
    each = [Neyman()(three[:, [place]], Uniform(), 0.01, GeneratorTape()).statistic for place in range(3)]
    alone, together = 3 * stats.chi2.sf(max(each), 4), stats.chi2.sf(sum(each), 12)
    joint = Neyman()(three, Uniform(3), 0.01, GeneratorTape())
    assert joint.p_value == pytest.approx(min(1.0, 2 * min(alone, together)), rel=1e-9)
    gram = polynomials(64, 4).T @ polynomials(64, 4) / 64
    assert torch.allclose(gram, torch.eye(4).double(), atol=1e-12)


def test_chi_square_of_a_continuous_law_keeps_twenty_rows_in_a_cell() -> None:
    u = GeneratorTape(6).uniform("u", (1000, 1))
    assert ChiSquare(64)(u, Uniform(), 0.01, GeneratorTape()).note.startswith("32 cells")
    with pytest.raises(ValueError, match="fold into 20"):
        ChiSquare(20)(u, Uniform(), 0.01, GeneratorTape())
    few = TransformHistogram()(torch.zeros(3, 300), normal(300), GeneratorTape())
    assert few.counts.shape == (300, 1 << 13)  # at most 2^22 cells in all


def test_lags_are_the_sums_of_products() -> None:
    z = GeneratorTape(7).normal("z", (40, 5, 2))
    check = Lags(2, 2)
    tally = check.statistic(z.flatten(1), normal(10), GeneratorTape())
    assert torch.allclose(tally.total, z.sum(0)) and torch.allclose(tally.square, z.square().sum(0))
    assert torch.allclose(tally.product[1, 3], (z[:, 3] * z[:, 1]).sum(0)) and not tally.product[1, :2].any()
    mean, variance = float(z.mean()) * math.sqrt(400), float(z.square().sum())
    lags = [float((z[:, k:] * z[:, :-k]).sum() / z[:, :-k].square().sum().sqrt()) for k in (1, 2)]
    wanted = mean**2 + stats.norm.isf(stats.chi2.sf(variance, 400)) ** 2 + sum(score**2 for score in lags)
    found = check.judge(tally, 0.01)
    assert found.statistic == pytest.approx(wanted, rel=1e-9)
    sums, squares = z.sum(0) / math.sqrt(40), z.square().sum(0)
    places = [sums.abs().max(), *((z[:, k:] * z[:, :-k]).sum(0) / squares[:-k].sqrt() for k in (1, 2))]
    tails_ = np.minimum(stats.chi2.sf(squares, 40), stats.chi2.cdf(squares, 40))
    largest = max(max(float(part.abs().max()) for part in places), float(stats.norm.isf(tails_.min())))
    alone = (10 + 10 + 8 + 6) * 2 * stats.norm.sf(largest)
    assert found.p_value == pytest.approx(min(1.0, 2 * min(alone, stats.chi2.sf(wanted, 4))), rel=1e-9)
    strong = check(z.flatten(1) + 0.2, normal(10), 0.01, GeneratorTape())
    pooled = stats.chi2.sf(strong.statistic, 4)
    assert strong.p_value == pytest.approx(2 * pooled, rel=1e-9, abs=0)  # where all together says more than any place
    for bad in (Lags(5, 2), Lags(1, 3)):
        with pytest.raises(ValueError, match="no sequence"):
            bad.statistic(z.flatten(1), normal(10), GeneratorTape())


def test_pooled_products_are_the_sum_over_pairs() -> None:
    u = GeneratorTape(8).uniform("u", (300, 3))
    features = torch.cat((math.sqrt(12) * (u - 0.5), math.sqrt(5) * (6 * (u - 0.5) ** 2 - 0.5)), 1)
    linear = [float((features[:, i] * features[:, j]).mean()) for i, j in ((0, 1), (0, 2), (1, 2))]
    others = [
        float((features[:, i + 3 * a] * features[:, j + 3 * b]).mean())
        for i, j in ((0, 1), (0, 2), (1, 2))
        for a, b in ((0, 1), (1, 0), (1, 1))
    ]
    p_values = [stats.chi2.sf(300 * np.square(part).sum(), len(part)) for part in (linear, others)]
    found = PooledProducts()(u, Uniform(3), 0.01, GeneratorTape())
    assert found.p_value == pytest.approx(min(1.0, 2 * min(p_values)), rel=1e-9)


def test_radius_and_projections_see_what_coordinates_do_not() -> None:
    """A factor shared by 16 coordinates; scales that grow and shrink together. False alarm 1e-6 each."""
    tape, n = GeneratorTape(9), 20_000
    z = tape.normal("z", (n, 16))
    common = (z + 0.2 * tape.normal("factor", (n, 1))) / math.sqrt(1.04)
    assert (
        Projections()(common, normal(16), 1e-6, tape).rejects and not Projections()(z, normal(16), 1e-6, tape).rejects
    )
    scaled = z * (0.1 * tape.normal("scale", (n, 1))).exp()
    assert Radius()(scaled, normal(16), 1e-6, tape).rejects and not Radius()(z, normal(16), 1e-6, tape).rejects
    moved = Radius().statistic(1.01 * z, normal(16), tape)
    each = [check.judge(moved, 0.01).p_value for check in (KolmogorovSmirnov(), AndersonDarling())]
    assert Radius().judge(moved, 0.01).p_value == pytest.approx(2 * min(each), rel=1e-9, abs=0)
    exact = stats.kstest(z.square().sum(1), "chi2", (16,)).statistic
    gap = KolmogorovSmirnov().judge(Radius().statistic(z, normal(16), tape), 0.01).statistic
    assert gap <= exact <= gap + 2.0**-16


# --- bounds and promises ---------------------------------------------------------------------------------------------
SHIFT = 0.1
RHO = 0.1


def gap_of(u: float, shift: float = SHIFT) -> float:
    """G(u) - u of the transform of N(shift, 1) under N(0, 1)."""
    return float(special.ndtr(special.ndtri(u) - shift) - u)


@cache
def distances(shift: float) -> dict[str, float]:
    """How far N(shift, 1) is from N(0, 1) in each metric, by quadrature over the transform."""

    def density(u: float) -> float:
        z = special.ndtri(u)
        return float(np.exp(z * shift - shift**2 / 2))

    def mean(j: int) -> float:
        size = math.sqrt(2 * j + 1)
        return float(integrate.quad(lambda u: size * special.eval_legendre(j, 2 * u - 1) * density(u), 0, 1)[0])

    edges = np.linspace(0, 1, 5)
    masses = np.diff([gap_of(u, shift) for u in edges])
    return {
        "ks": 2 * special.ndtr(shift / 2) - 1,
        "rms gap": math.sqrt(integrate.quad(lambda u: gap_of(u, shift) ** 2, 0, 1)[0]),
        "anderson-darling distance": math.sqrt(
            integrate.quad(lambda u: gap_of(u, shift) ** 2 / (u * (1 - u)), 0, 1, limit=400)[0]
        ),
        "legendre norm": math.sqrt(sum(mean(j) ** 2 for j in range(1, 5))),
        "tv on cells": np.abs(masses).sum() / 2,
        "correlation": 6 / math.pi * math.asin(RHO / 2),
    }


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


def test_the_range_of_neymans_polynomials() -> None:
    """No two points of the curve are further apart than from end to end, 2 sqrt 10, at degree 4."""
    basis = polynomials(512, 4)
    assert float(torch.cdist(basis, basis).max()) == pytest.approx(2 * math.sqrt(10), rel=0.02)


def shifted_to(metric: str, size: float) -> float:
    """The shift of a normal law that has this distance."""
    low, high = 0.0, 2.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if distances(middle)[metric] < size else (low, middle)
    return high


def promise(check: Check, dim: int, n: int) -> float:
    z = GeneratorTape().normal("z", (n, dim))
    size = check(z, normal(dim), 1e-3, GeneratorTape()).smallest
    assert size is not None
    return size


def seen(check: Check, draw: Draw, truth: Any, runs: int = 100) -> int:
    tape = GeneratorTape(11)
    return sum(check(draw(tape), truth, 1e-3, tape).rejects for _ in range(runs))


@pytest.mark.parametrize("check", [AndersonDarling(12), CramerVonMises(bits=12), KolmogorovSmirnov(bits=12)], ids=str)
def test_integrals_see_their_smallest_defect(check: Check) -> None:
    """A shift of the promised distance is found nine times in ten: fewer than 74 of 100 have probability 1e-6. Half of
    it is not.
    """
    n = 4000
    size = promise(check, 1, n)
    shift = shifted_to(check(torch.zeros(n, 1), normal(), 1e-3, GeneratorTape()).metric, size)
    assert shift < 0.12
    assert seen(check, lambda tape: tape.normal("z", (n, 1)) + shift, normal()) >= at_least(0.9, 100)
    assert seen(check, lambda tape: tape.normal("z", (n, 1)) + shift / 2, normal()) < 50


def test_neyman_sees_its_smallest_defect() -> None:
    """Density 1 + c phi_2, for one column and for one of three."""
    n = 4000
    for dim in (1, 3):
        check = Neyman(bits=12)
        size = promise(check, dim, n)

        def defect(tape: GeneratorTape, dim: int = dim, size: float = size) -> Tensor:
            u, other = tape.uniform("u", (n, dim)), tape.uniform("other", (n,))
            second = math.sqrt(5) * (6 * (u[:, 0] - 0.5) ** 2 - 0.5)
            # u stays with probability proportional to its density; else the mirror of the second polynomial's sign.
            worst = 1 + size * math.sqrt(5)
            for turn in range(60):
                again = other * worst > 1 + size * second
                if not bool(again.any()):
                    break
                u[:, 0] = torch.where(again, tape.uniform(f"u.{turn}", (n,)), u[:, 0])
                other = torch.where(again, tape.uniform(f"other.{turn}", (n,)), other)
                second = math.sqrt(5) * (6 * (u[:, 0] - 0.5) ** 2 - 0.5)
            return u

        assert size < 0.1
        assert seen(check, defect, Uniform(dim)) >= at_least(0.9, 100)


def test_pooled_products_see_their_smallest_defect() -> None:
    """Equal correlations of eight coordinates, whose Spearman correlations have the promised norm."""
    n, dim = 3000, 8
    size = promise(PooledProducts(), dim, n)
    rho = 2 * math.sin(math.pi * size / math.sqrt(dim * (dim - 1) / 2) / 6)

    def defect(tape: GeneratorTape) -> Tensor:
        common = tape.normal("common", (n, 1))
        return math.sqrt(rho) * common + math.sqrt(1 - rho) * tape.normal("z", (n, dim))

    assert rho < 0.03
    assert seen(PooledProducts(), defect, normal(dim)) >= at_least(0.9, 100)
    assert seen(Products(), defect, normal(dim), 50) < 10  # no pair shows by itself


def test_lags_see_their_smallest_defect() -> None:
    """Innovations that are moving averages, correlated at lag 1 as promised; and one place that depends alone."""
    n, length = 500, 9
    size = promise(Lags(), length, n)
    theta = (1 - math.sqrt(1 - 4 * size**2)) / (2 * size)

    def defect(tape: GeneratorTape) -> Tensor:
        noise = tape.normal("e", (n, length + 1))
        return (noise[:, 1:] + theta * noise[:, :-1]) / math.sqrt(1 + theta**2)

    def place(tape: GeneratorTape) -> Tensor:
        z = tape.normal("z", (n, length))
        z[:, 5] = 0.3 * z[:, 4] + math.sqrt(1 - 0.09) * z[:, 5]
        return z

    assert size < 0.1
    assert seen(Lags(), defect, normal(length)) >= at_least(0.9, 100)
    assert seen(Lags(), place, normal(length), 30) == 30
    assert "lag 1 at token 5" in Lags()(place(GeneratorTape(1)), normal(length), 1e-3, GeneratorTape()).note


def test_radius_and_projections_see_their_smallest_defect() -> None:
    n, dim = 3000, 6
    size = promise(Radius(bits=12), dim, n)
    scales = 1 + np.linspace(0, 0.2, 2001)
    place = np.linspace(0, 40, 4001)
    gaps = [np.abs(stats.chi2.cdf(place / scale**2, dim) - stats.chi2.cdf(place, dim)).max() for scale in scales]
    scale = float(scales[np.searchsorted(gaps, size)])
    assert seen(Radius(bits=12), lambda tape: scale * tape.normal("z", (n, dim)), normal(dim)) >= at_least(0.9, 100)

    check = Projections(bits=10, directions=16)
    size = promise(check, dim, n)
    from verify.checks.projections import _directions

    shift = 2 * special.ndtri((1 + size) / 2) * _directions(dim, 16)[:, 3]
    assert seen(check, lambda tape: shift + tape.normal("z", (n, dim)), normal(dim)) >= at_least(0.9, 100)


def test_surprisal_sees_its_smallest_defect() -> None:
    """A colder sampler whose surprise is lower by the promised number of nats a token."""
    rows, length = 300, 4
    opening = WORDS.rows[-1]
    truth = opening[None, None][torch.zeros(rows, length, dtype=torch.long), 0]
    size = Surprisal()(truth.sample(GeneratorTape(), "y"), truth, 1e-3, GeneratorTape()).smallest
    assert size is not None

    def excess(sharpness: float) -> float:
        cold = Categorical(opening.probs**sharpness)
        return float((cold.probs * -opening.probs.log()).sum() - (opening.probs * -opening.probs.log()).sum())

    sharpness = 1.0
    while excess(sharpness) > -size:
        sharpness += 0.001
    cold = Categorical(truth.probs**sharpness)
    assert seen(Surprisal(), lambda tape: cold.sample(tape, "y"), truth) >= at_least(0.9, 100)
    with pytest.raises(TypeError, match="Gaussian"):
        Surprisal()(torch.zeros(3, 1), normal(), 1e-3, GeneratorTape())


# --- promised power on the reference defects -------------------------------------------------------------------------
def contaminated(n: int, tape: GeneratorTape) -> Tensor:
    """N(0, I) in 16 dimensions, 1 % of it N(c, I / 4) with |c| = 3, in a direction of its own every time."""
    away = torch.nn.functional.normalize(tape.normal("c", (16,)), dim=0)
    z, hit = tape.normal("z", (n, 16)), tape.uniform("hit", (n, 1)) < 0.01
    return torch.where(hit, 3 * away + 0.5 * z, z)


@dataclass(frozen=True)
class Bank(Check):
    """Columns, pairs and all pairs together, at a third of the level each."""

    claim = Products.claim

    def __call__(self, sample: Any, truth: Any, alpha: float, tape: Any) -> Finding:
        pairs = Products().statistic(sample, truth, tape)
        found = [check.judge(pairs, alpha / 3) for check in (Products(), PooledProducts())]
        return min([*found, Neyman(bits=12)(sample, truth, alpha / 3, tape)], key=lambda item: item.p_value or 0.0)

    statistic = judge = None  # type: ignore[assignment]


REFERENCE: dict[str, tuple[Check, Draw, Any]] = {
    "mean shift 0.02": (AndersonDarling(), lambda tape: tape.normal("z", (65_000, 1)) + 0.02, normal()),
    "1 % contamination in 16-D": (Bank(), lambda tape: contaminated(26_000, tape), normal(16)),
    "correlation 0.48 for 0.50": (
        Lags(width=2),
        lambda tape: tape.normal("z", (3600, 16)) @ chains(0.48).scale_tril.T,
        chains(0.5),
    ),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_power_on_reference_defects(name: str) -> None:
    """At level 1e-3, nine times in ten: fewer than 25 of 40 have probability 1e-6."""
    check, draw, truth = REFERENCE[name]
    assert seen(check, draw, truth, 40) >= at_least(0.9, 40)


# --- the transform ---------------------------------------------------------------------------------------------------
def independent(columns: Tensor, level: float = 1e-6) -> bool:
    """Every column uniform and all pairs independent, five checks at ``level`` each."""
    tape, width = GeneratorTape(), columns.shape[1]
    checks: list[Check] = [AndersonDarling(12), ChiSquare(32, bits=12), Neyman(bits=12)]
    checks += [Products(), PooledProducts()] if width > 1 else []
    return not any(check(columns, Uniform(width), level, tape).rejects for check in checks)


def in_the_plane() -> Mixture:
    factor = torch.tensor([[[1.0, 0.0], [0.8, 0.5]], [[0.4, 0.0], [-0.3, 0.2]], [[0.7, 0.0], [0.0, 1.5]]])
    return Mixture(
        torch.tensor([0.5, 0.3, 0.2]), FullGaussian(torch.tensor([[0.0, 0.0], [2.0, -1.0], [-3.0, 1.0]]), factor)
    )


def test_rosenblatt_of_a_mixture_by_quadrature() -> None:
    """u_1 and u_2 at some points from the density alone; both tails."""
    law, places = in_the_plane(), [(0.3, -0.2), (2.1, -1.4), (-3.0, 2.0), (5.5, -1.0)]

    def density(x: float, y: float) -> float:
        return float(law.log_prob(torch.tensor([x, y], dtype=torch.float64)).exp())

    found = uniforms(torch.tensor(places, dtype=torch.float64), law, GeneratorTape())
    for row, (x, y) in zip(found.tolist(), places, strict=True):
        total = integrate.quad(lambda t, x=x: density(x, t), -12, 12, limit=200)[0]
        below = integrate.quad(lambda t, x=x: density(x, t), -12, y, limit=200)[0]
        assert row[1] == pytest.approx(below / total, abs=1e-8)
        first = sum(
            float(weight) * special.ndtr((x - mean) / scale)
            for weight, mean, scale in zip(
                law.weights, law.components.mean[:, 0].tolist(), law.components.factor[:, 0, 0].tolist(), strict=True
            )
        )
        assert row[0] == pytest.approx(float(first), abs=1e-12)
    far = tails(torch.tensor([[9.0, 0.0], [-12.0, 0.0]]).double(), law, GeneratorTape())[:, 0]
    parts = list(zip(law.weights, law.components.mean[:, 0], law.components.factor[:, 0, 0], strict=True))
    above, below = (
        sum(float(weight) * special.ndtr(float(sign * (mean - x) / scale)) for weight, mean, scale in parts)
        for x, sign in ((9.0, 1), (-12.0, -1))
    )
    assert float(far[0]) == pytest.approx(-above, rel=1e-9, abs=0) and above < 1e-17  # 1 - u is 0 in floats
    assert float(far[1]) == pytest.approx(below, rel=1e-9, abs=0) and below < 1e-17


def test_transform_along_a_sequence_is_that_of_its_joint_law() -> None:
    """Token by token with the model's laws, or whitened by the Cholesky factor of all at once: the same noise."""
    joint = CHAIN.sequence_law(6)
    z = GeneratorTape(12).normal("z", (50, 12))
    tokens = (joint.mean + z @ joint.scale_tril.T).unflatten(1, (6, 2))
    assert torch.allclose(scores(tokens, CHAIN, GeneratorTape()), z, atol=1e-12)
    assert torch.allclose(scores(tokens.flatten(1), joint, GeneratorTape()), z, atol=1e-12)
    assert torch.allclose(scores(uniforms(tokens, CHAIN, GeneratorTape()), Uniform(12), GeneratorTape()), z, atol=1e-6)


def samples() -> dict[str, tuple[Any, Callable[[int, GeneratorTape], Tensor]]]:
    """Truths, and how as many samples as wanted are drawn from them."""

    def of(law: Any) -> Callable[[int, GeneratorTape], Tensor]:
        return lambda n, tape: law[None][torch.zeros(n, dtype=torch.long)].sample(tape, "draw")

    grid, condition = cosine(5).one_step_in(), torch.tensor([0.4, -0.2]).double()
    bell = head(normal_data(scale=0.5), 2, grid)(condition)
    modes = Reversal(in_the_plane(), cosine(4))
    flow = FlowLaw(head(normal_data(scale=0.5), 2, grid)(condition).head, grid, condition)
    paths = TokenSequence(
        lambda where: PathLaw(head(normal_data(scale=0.5), 2, cosine(3))(where[..., :2])), dim=2, order=1
    )

    def told(n: int, tape: GeneratorTape) -> Tensor:
        state, found = paths.start(n), []
        for place in range(3):
            found.append(paths.law(state).sample(tape, f"path.{place}"))
            state = paths.extend(state, found[-1], torch.ones(n, dtype=torch.long))
        return torch.cat(found, 1)

    return {
        "a mixture": (in_the_plane(), of(in_the_plane())),
        "paths of a head": (PathLaw(bell), of(PathLaw(bell))),
        "paths without a last noise": (PathLaw(bell, last_noise=False), of(PathLaw(bell, last_noise=False))),
        "paths of a reversal of a mixture": (PathLaw(modes), of(PathLaw(modes))),
        "tokens of a flow": (flow, of(flow)),
        "tokens of a flow with their noise": (
            FlowLaw(flow.head, grid, condition, with_noise=True),
            of(FlowLaw(flow.head, grid, condition, with_noise=True)),
        ),
        "words": (WORDS, lambda n, tape: spoken(tape, n, 4)),
        "a sequence of paths": (paths, told),
    }


@pytest.mark.parametrize("name", samples())
def test_transform_of_each_law_is_uniform_and_independent(name: str) -> None:
    """False alarm 5e-6 a law; and a sample moved a little, or of another seed's tokens, is found."""
    truth, draw = samples()[name]
    tape, n = GeneratorTape(13), 4000
    sample = draw(n, tape)
    columns = uniforms(sample, truth, tape)
    assert columns.shape[0] == n and bool(((columns >= 0) & (columns <= 1)).all())
    assert independent(columns)
    found = scores(sample, truth, tape)
    assert bool(torch.isfinite(found).all()) and abs(float(found.var()) - 1) < 0.05
    wrong = sample.roll(1, 1) if name == "words" else sample + 0.15 * sample.std()
    assert not independent(uniforms(wrong, truth, tape))


def test_a_path_that_ends_elsewhere_is_found() -> None:
    """Without a last noise x_0 has no law but its one atom: one wrong end in 50 is seen, and only in that column."""
    truth, draw = samples()["paths without a last noise"]
    tape = GeneratorTape(14)
    path = draw(4000, tape)
    path[::50, -1] += 0.01
    columns = uniforms(path, truth, tape)
    assert independent(columns[:, :-2]) and not independent(columns)


def test_a_flow_that_cannot_be_inverted_raises() -> None:
    truth, _ = samples()["tokens of a flow"]
    with pytest.raises(ArithmeticError, match="no noise leads to"):
        uniforms(torch.full((3, 2), torch.nan).double(), truth, GeneratorTape())


def test_tokens_outside_the_vocabulary_are_ends_of_the_interval() -> None:
    law = Categorical(torch.tensor([0.5, 0.5]))
    found = uniforms(torch.tensor([-1, 0, 1, 2]), law, GeneratorTape())[:, 0].tolist()
    assert found[0] < 1e-300 and found[3] == 1.0 and 0 < found[1] < 0.5 < found[2] < 1


# --- shards ----------------------------------------------------------------------------------------------------------
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


def test_surprisal_of_one_law_for_all_tokens_is_that_of_the_law_repeated() -> None:
    """A batch () of laws broadcasts: the same sums, variances counted for every token."""
    law = Categorical(torch.tensor([0.5, 0.3, 0.2]))
    tokens = law[None][torch.zeros(50, 4, dtype=torch.long)].sample(GeneratorTape(3), "tokens")
    every = Categorical(law.probs.expand(50, 4, 3))
    once, repeated = (Surprisal().statistic(tokens, truth, GeneratorTape(4)) for truth in (law, every))
    assert once.n == repeated.n == 200
    assert once.excess == pytest.approx(repeated.excess) and once.variance == pytest.approx(repeated.variance)
