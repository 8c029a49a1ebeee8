"""Pearson's chi-square on equiprobable cells, or on the tokens of a finite vocabulary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from scipy.special import chdtrc
from statsmodels.stats.power import GofChisquarePower
from torch import Tensor

from verify.checks import Check
from verify.records import CheckClaim, Finding
from verify.statistics.histogram import Histogram, TransformHistogram

ROWS_PER_CELL = 20
"""Fewest rows expected in a cell. Measured on 16 to 512 cells: the test rejects at most 1.4 times too often at level
1e-5 with 20 rows a cell, and 2.7 times with 5 (the chi-square law is too light in its tail)."""


@cache
def effect(n: int, freedom: int, alpha: float) -> float:
    """The root of the noncentrality per row at which a chi-square test of ``freedom`` degrees has power 0.9."""
    found = GofChisquarePower().solve_power(nobs=n, alpha=alpha, power=0.9, n_bins=freedom + 1)
    return float(np.asarray(found).item())


def detectable(n: int, cells: int, alpha: float) -> float:
    """The total variation on ``cells`` cells that the test sees nine times in ten, whatever the shape of the defect.

    The test has power 0.9 at chi-square divergence w^2, and the divergence is at least 4 TV^2, hence w / 2.
    """
    return min(1.0, 0.5 * effect(n, cells - 1, alpha))


@dataclass(frozen=True)
class ChiSquare(Check):
    """Counts against expectations: sum (count - n P)^2 / (n P), chi-square with cells - 1 degrees of freedom.

    Continuous laws: equal cells of every column of the probability integral transform, ``cells`` or as many fewer as
    leaves 20 rows a cell (both powers of two), Bonferroni over the columns. A Categorical with one law for all rows:
    its own tokens, those with fewer than 20 expected rows merged (tokens of mass zero are the business of
    ``support``). ``bound``: total variation on these cells found, plus sqrt(ln(1/delta) / (2n)); the set of cells where
    the truth departs most is fixed before the sample is drawn, so Hoeffding's inequality at that set is enough.
    """

    cells: int = 64
    delta: float = 1e-6
    bits: int = 16
    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="any change of mass between cells, narrow bumps included",
        blind_to="defects inside a cell, dependence between columns or rows",
    )

    @property
    def statistic(self) -> TransformHistogram:
        return TransformHistogram(self.bits)

    def judge(self, tally: Histogram, alpha: float) -> Finding:
        n = tally.n
        if len(tally.tokens):
            counts, expected = _merged(tally.tokens.double(), tally.expected)
        else:
            most = min(self.cells, tally.counts.shape[1])
            while most > 2 and most * ROWS_PER_CELL > n:
                most //= 2
            counts = tally.folded(most).double()
            expected = torch.full(counts.shape, n / most, dtype=torch.float64)
        width, cells = counts.shape
        statistic = ((counts - expected).square() / expected).sum(-1)
        worst = int(statistic.argmax())
        tail = float(chdtrc(cells - 1, float(statistic[worst]))) if cells > 1 else 1.0
        size = round(float(expected[0].sum()))  # tokens, of which a row may have several
        apart = float((counts - expected).abs().sum(-1).max()) / (2 * size)
        return Finding(
            verifier="",
            scenario="",
            check=f"chi_square_{self.cells}",
            statistic=float(statistic[worst]),
            p_value=min(1.0, width * tail),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"{cells} cells; column {worst} of {width} departs most",
            metric="tv on cells",
            bound=min(1.0, apart + math.sqrt(math.log(1 / self.delta) / (2 * size))),
            smallest=detectable(size, cells, alpha / width) if cells > 1 else None,
        )


def _merged(counts: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Counts and expectations (1, cells) of the tokens, the rarest in one cell that expects enough rows."""
    expected, order = expected.sort(descending=True)
    counts = counts[order]
    alone = int((expected >= ROWS_PER_CELL).sum())
    if float(expected[alone:].sum()) < ROWS_PER_CELL:
        alone = max(0, alone - 1)
    counts, expected = (torch.cat((item[:alone], item[alone:].sum(0, keepdim=True))) for item in (counts, expected))
    return counts.unsqueeze(0), expected.unsqueeze(0)
