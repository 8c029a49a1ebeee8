"""Anderson-Darling, Cramér-von Mises and Kolmogorov-Smirnov: null laws, statistics, tails, and promised power."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from distributions.tape import GeneratorTape
from tests.chance import at_least
from tests.law_checks_under_test import normal, promise, seen, shifted_to
from verify.checks import Check
from verify.checks.anderson_darling import AndersonDarling
from verify.checks.chi_square import ChiSquare
from verify.checks.cramer_von_mises import CramerVonMises
from verify.checks.ks import KolmogorovSmirnov
from verify.statistics.bridge import ANDERSON_DARLING, CRAMER_VON_MISES, Integral
from verify.statistics.histogram import TransformHistogram
from verify.statistics.transform import Uniform, tails


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


@pytest.mark.parametrize("check", [AndersonDarling(12), CramerVonMises(bits=12), KolmogorovSmirnov(bits=12)], ids=str)
def test_integrals_see_their_smallest_defect(check: Check) -> None:
    """A shift of the promised distance is found nine times in ten: fewer than 73 of 100 have probability 1e-6. Half of
    it is not.
    """
    n = 4000
    size = promise(check, 1, n)
    shift = shifted_to(check(torch.zeros(n, 1), normal(), 1e-3, GeneratorTape()).metric, size)
    assert shift < 0.12
    assert seen(check, lambda tape: tape.normal("z", (n, 1)) + shift, normal()) >= at_least(0.9, 100)
    assert seen(check, lambda tape: tape.normal("z", (n, 1)) + shift / 2, normal()) < 50
