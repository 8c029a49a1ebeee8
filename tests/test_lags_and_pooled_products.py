"""Dependence along a sequence and between all pairs of columns: the statistics, and the promised power."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from distributions.tape import GeneratorTape
from tests.chance import at_least
from tests.law_checks_under_test import normal, promise, seen
from verify.checks.lags import Lags
from verify.checks.pooled_products import PooledProducts
from verify.checks.products import Products
from verify.statistics.transform import Uniform


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
