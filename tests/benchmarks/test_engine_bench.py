"""Six tests of a known law from one pass, against scipy's two.

The reference is scipy's kstest and cramervonmises of a million numbers; the engine adds Anderson-Darling, Neyman's
smooth test, and chi-square on 64 and on 1024 cells, on the same numbers in shards. The other rows draw their sample
too, shard by shard, and keep nothing but counts: what a row costs is what one of 10^9 costs.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from distributions.gaussian import Gaussian
from distributions.tape import GeneratorTape
from tests.benchmarks.report import Section, Versus
from verify.checks import Check
from verify.checks.anderson_darling import AndersonDarling
from verify.checks.chi_square import ChiSquare
from verify.checks.cramer_von_mises import CramerVonMises
from verify.checks.ks import KolmogorovSmirnov
from verify.checks.lags import Lags
from verify.checks.neyman import Neyman
from verify.checks.pooled_products import PooledProducts
from verify.checks.products import Products
from verify.engine import tallied
from verify.records import Finding

CHECKS: tuple[Check, ...] = (
    KolmogorovSmirnov(), CramerVonMises(), AndersonDarling(), Neyman(), ChiSquare(64), ChiSquare(1024),
)  # fmt: skip
SHARD, SHARDS = 1 << 18, 4
ALPHA = 1e-9  # the false alarm of each assertion that a check accepts


def normal(dim: int) -> Gaussian:
    return Gaussian(torch.zeros(dim), torch.ones(dim))


@dataclass(frozen=True)
class Drawn:
    """Shards of ``rows`` standard normal vectors of ``dim`` numbers, drawn when they are asked for."""

    rows: int
    dim: int

    def __call__(self, shard: int) -> tuple[Tensor, Gaussian]:
        return GeneratorTape(shard).normal("z", (self.rows, self.dim)), normal(self.dim)


@dataclass(frozen=True, eq=False)
class Held:
    """The shards of a sample in memory."""

    sample: Tensor

    def __call__(self, shard: int) -> tuple[Tensor, Gaussian]:
        return self.sample[shard * SHARD : (shard + 1) * SHARD], normal(1)


def judged(checks: tuple[Check, ...], source: Callable[[int], tuple[Any, Any]], shards: int) -> list[Finding]:
    """All findings on the first shards of a source."""
    tallies = tallied((check.statistic for check in checks), source, range(shards))
    return [check.judge(tallies[check.statistic], ALPHA) for check in checks]


def test_six_tests_against_two_of_scipys(versus: Versus, section: Section) -> None:
    sample = GeneratorTape(0).normal("z", (SHARD * SHARDS, 1))
    line = sample[:, 0].numpy()
    run = versus(
        lambda: judged(CHECKS, Held(sample), SHARDS),
        lambda: (stats.kstest(line, "norm"), stats.cramervonmises(line, "norm")),
    )
    ks, cvm = run.reference_result
    assert run.result[0].statistic == pytest.approx(ks.statistic, abs=2**-16)
    assert run.result[1].statistic == pytest.approx(cvm.statistic, abs=2**-12)
    assert run.result[1].p_value == pytest.approx(cvm.pvalue, abs=1e-3)
    assert not any(finding.rejects for finding in run.result)
    section.row(
        million_rows=len(line) / 1e6,
        tests=f"{len(CHECKS)} against scipy's 2",
        time_over_scipys=run.ratio,
        nanoseconds_a_row=run.seconds / len(line) * 1e9,
        seconds=run.seconds,
        scipy_seconds=run.reference_seconds,
    )


@pytest.mark.parametrize(
    "name, checks, dim, rows",
    [
        ("six on the line", CHECKS, 1, SHARD),
        ("pairs of 16 coordinates", (Products(), PooledProducts()), 16, SHARD // 16),
        ("chains of 16 steps", (Lags(),), 16, SHARD // 16),
    ],
)
def test_sample_and_judge(
    name: str, checks: tuple[Check, ...], dim: int, rows: int, versus: Versus, section: Section
) -> None:
    """Against drawing the sample alone, which is all of it that cannot be avoided."""
    source, shards = Drawn(rows, dim), 16
    run = versus(lambda: judged(checks, source, shards), lambda: [source(shard) for shard in range(shards)], turns=3)
    assert all(finding.n == rows * shards and not finding.rejects for finding in run.result)
    assert not np.isnan([finding.statistic for finding in run.result]).any()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    judged(checks, source, 2 * shards)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # kilobytes
    assert grown < 4096  # twice the rows, and the sample's 64 MB nowhere
    section.row(
        checks=name,
        numbers_a_row=dim,
        time_over_drawing_alone=run.ratio,
        nanoseconds_a_row=run.seconds / (rows * shards) * 1e9,
        rows_per_second=rows * shards / run.seconds,
    )
