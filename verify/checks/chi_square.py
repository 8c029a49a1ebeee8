"""Pearson's chi-square on equiprobable cells, or on the tokens of a finite vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from scipy.stats import chi2
from statsmodels.stats.power import GofChisquarePower
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.checks.transform import uniforms
from verify.records import CheckClaim, Finding

ROWS_PER_CELL = 20
"""Fewest rows expected in a cell. Measured on 16 to 512 cells: the test rejects at most 1.4 times too often at level
1e-5 with 20 rows a cell, and 2.7 times with 5 (the chi-square law is too light in its tail)."""


def cell_counts(columns: Tensor, cells: int) -> Tensor:
    """Rows of each column of ``columns`` (n, m) in each of ``cells`` equal cells of [0, 1]: counts (m, cells)."""
    n, width = columns.shape
    place = (columns * cells).long().clamp(0, cells - 1) + cells * torch.arange(width)
    return torch.bincount(place.reshape(-1), minlength=width * cells).reshape(width, cells)


@cache
def detectable(n: int, cells: int, alpha: float) -> float:
    """The total variation on ``cells`` cells that the test sees nine times in ten, whatever the shape of the defect.

    The test has power 0.9 at chi-square divergence w^2, and the divergence is at least 4 TV^2, hence w / 2.
    """
    effect = GofChisquarePower().solve_power(nobs=n, alpha=alpha, power=0.9, n_bins=cells)
    return min(1.0, 0.5 * float(np.asarray(effect).item()))


@dataclass(frozen=True)
class ChiSquare:
    """Counts against expectations: sum (count - n P)^2 / (n P), chi-square with cells - 1 degrees of freedom.

    Continuous laws: equal cells of every column of the probability integral transform, at most ``cells`` and at least
    20 rows a cell, Bonferroni over the columns. A Categorical with one law for all rows: its own tokens, those with
    fewer than 20 expected rows merged (tokens of mass zero are the business of ``support``).
    """

    cells: int = 64
    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="any change of mass between cells, narrow bumps included",
        blind_to="defects inside a cell, dependence between columns or rows",
    )

    def __call__(self, sample: Tensor, truth: Law, alpha: float, tape: Tape) -> Finding:
        n = len(sample)
        if isinstance(truth, Categorical) and truth.batch_shape == ():
            counts, expected = _merged(sample, truth.probs)
        else:
            cells = max(2, min(self.cells, n // ROWS_PER_CELL))
            counts = cell_counts(uniforms(sample, truth, tape), cells)
            expected = torch.full(counts.shape, n / cells, dtype=torch.float64)
        width, cells = counts.shape
        statistic = ((counts - expected).square() / expected).sum(-1)
        worst = int(statistic.argmax())
        tail = float(chi2.sf(float(statistic[worst]), cells - 1)) if cells > 1 else 1.0
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
            smallest=detectable(n, cells, alpha / width) if cells > 1 else None,
        )


def _merged(sample: Tensor, probs: Tensor) -> tuple[Tensor, Tensor]:
    """Counts and expectations (1, cells) of the tokens, the rarest in one cell that expects enough rows."""
    known = sample[(sample >= 0) & (sample < len(probs))]
    ordered, order = probs.sort(descending=True)
    counts = torch.bincount(known, minlength=len(probs))[order].double()
    expected = len(sample) * ordered
    alone = int((expected >= ROWS_PER_CELL).sum())
    if float(expected[alone:].sum()) < ROWS_PER_CELL:
        alone = max(0, alone - 1)
    counts, expected = (torch.cat((item[:alone], item[alone:].sum(0, keepdim=True))) for item in (counts, expected))
    return counts.unsqueeze(0), expected.unsqueeze(0)
