"""Neyman's smooth test: the first moments of the transform, in orthonormal polynomials."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from scipy.special import chdtrc
from torch import Tensor

from verify.checks import Check
from verify.checks.chi_square import effect
from verify.records import CheckClaim, Finding
from verify.statistics.histogram import Histogram, TransformHistogram

FINE = 4096
"""Cells of the grid on which the polynomials are taken; a degree-4 one loses 1e-6 of its variance to them."""


@dataclass(frozen=True)
class Neyman(Check):
    """n times the sum of the squared means of k = ``degrees`` Legendre polynomials of a column: chi-square, k degrees.

    Neyman (Skandinavisk Aktuarietidskrift 20, 1937). The polynomials are those orthonormal on the grid itself, so the
    means are sums of counts and their covariance is exactly I / n. Two tests, each at half the level: of the column
    that departs most, Bonferroni over the columns, and of all columns together, which sees what is small in each.
    ``bound``: the root of the sum of squared means of a column is the largest mean of a combination of norm 1. Its
    range is at most 2 sqrt(sum over odd j <= k of (2 j + 1)) (polynomials of odd degree change sign from end to end)
    or, where that is more, the largest distance of two points of the curve of the polynomials; and the one that the
    truth makes largest is fixed before the sample is drawn (Hoeffding, confidence 1 - ``delta``).
    """

    degrees: int = 4
    delta: float = 1e-6
    bits: int = 16
    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="smooth changes: location, scale, skewness, tails",
        blind_to="bumps narrower than a sixteenth, dependence between columns or rows",
    )

    @property
    def statistic(self) -> TransformHistogram:
        return TransformHistogram(self.bits)

    def judge(self, tally: Histogram, alpha: float) -> Finding:
        n, (width, cells) = tally.n, tally.counts.shape
        counts = tally.folded(min(cells, FINE))
        basis = polynomials(counts.shape[1], self.degrees)
        squares = (counts.double() @ basis / n).square().sum(-1)
        worst, shares = int(squares.argmax()), 1 if width == 1 else 2
        alone = width * float(chdtrc(self.degrees, n * float(squares[worst])))
        together = float(chdtrc(width * self.degrees, n * float(squares.sum())))
        return Finding(
            verifier="",
            scenario="",
            check=f"neyman_{self.degrees}",
            statistic=n * float(squares[worst]),
            p_value=min(1.0, shares * min(alone, together)),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"column {worst} of {width} departs most" if alone <= together else f"all {width} columns together",
            metric="legendre norm",
            bound=math.sqrt(float(squares[worst])) + _range(basis) * math.sqrt(math.log(1 / self.delta) / (2 * n)),
            smallest=effect(n, self.degrees, alpha / (shares * width)),
        )


@cache
def polynomials(cells: int, degrees: int) -> Tensor:
    """Values (cells, degrees) of the polynomials orthonormal on the middles of equal cells: mean 0, variance 1."""
    middle = (np.arange(cells) + 0.5) / cells
    basis, _ = np.linalg.qr(np.polynomial.legendre.legvander(2 * middle - 1, degrees))
    return torch.as_tensor(basis[:, 1:] * math.sqrt(cells))


def _range(basis: Tensor) -> float:
    """The largest distance of two points of the curve, found between 128 points and both ends, rounded up by 1 %."""
    some = basis[torch.linspace(0, len(basis) - 1, 130).long()]
    return 1.01 * float(torch.cdist(some, some).max())
