"""Dependence between the coordinates of a row: the pair that depends most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from distributions.tape import Tape
from verify.checks import Check, Tally
from verify.records import CheckClaim, Finding
from verify.statistics.transform import blocks, uniforms

LARGEST, RANGE = 5.0, 2 * math.sqrt(15)
"""The largest product of two of the polynomials below, and the widest range of one of the products."""


def legendre(columns: Tensor) -> Tensor:
    """The first two orthonormal shifted Legendre polynomials of each column: (n, 2 m), mean 0 and variance 1."""
    centred = columns - 0.5
    return torch.cat((math.sqrt(12) * centred, math.sqrt(5) * (6 * centred.square() - 0.5)), -1)


@dataclass(frozen=True, eq=False)
class Gram(Tally):
    """``sums`` (2 m, 2 m): of the products of any two of ``legendre``'s polynomials."""

    sums: Tensor

    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """The means of the products of polynomials of two different columns, and the places (2, pairs) and degrees
        (2, pairs), 1 or 2, of the two. Raises ValueError for a single column, which has no pair.
        """
        width = len(self.sums) // 2
        if width < 2:
            raise ValueError("products need two columns or more; a law on the line has no pair of coordinates")
        index = torch.triu_indices(2 * width, 2 * width, 1)
        index = index[:, index[0] % width != index[1] % width]
        return self.sums[index[0], index[1]] / self.n, index % width, index // width + 1


@dataclass(frozen=True)
class LegendreProducts:
    """All products of polynomials of degrees 1 and 2 of the columns of the transform."""

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> Gram:
        total = torch.zeros(())
        for _, columns in blocks(uniforms, sample, truth, tape):
            features = legendre(columns)
            total = features.T @ features + total
        return Gram(len(sample), total)


@dataclass(frozen=True)
class Products(Check):
    """The largest mean product of Legendre polynomials (degrees 1 and 2) of two different columns, all pairs.

    The products of independent uniforms' polynomials have mean 0, variance 1 and size at most 5, so Bernstein's
    inequality gives P(|mean| >= t) <= 2 exp(-n t^2 / (2 + 10 t / 3)) at every n; Bonferroni over the pairs. The part of
    degree (1, 1) is Spearman's correlation; (2, 2) sees scales that vary together. ``bound``: the largest mean plus 2
    sqrt 15 sqrt(ln(1/delta) / (2n)), as no product has a wider range and the pair that the truth makes largest is fixed
    before the sample is drawn (Hoeffding).
    """

    delta: float = 1e-6
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="correlated coordinates, common scales, a wrong reflection or rotation",
        blind_to="dependence among three or more coordinates, and of a higher degree",
    )

    @property
    def statistic(self) -> LegendreProducts:
        return LegendreProducts()

    def judge(self, tally: Gram, alpha: float) -> Finding:
        n = tally.n
        means, columns, degrees = tally.pairs()
        worst, at, count = float(means.abs().max()), int(means.abs().argmax()), len(means)
        logs = math.log(2 * count / alpha)
        return Finding(
            verifier="",
            scenario="",
            check="products",
            statistic=worst,
            p_value=min(1.0, 2 * count * math.exp(-n * worst**2 / (2 + 2 * LARGEST * worst / 3))),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"columns {int(columns[0, at])} and {int(columns[1, at])}, degrees "
            f"{int(degrees[0, at])} and {int(degrees[1, at])}",
            metric="correlation",
            bound=worst + RANGE * math.sqrt(math.log(1 / self.delta) / (2 * n)),
            # The critical value solves n t^2 = log (2 + 10 t / 3); beyond it the mean has a deviation of 1 / sqrt n.
            smallest=LARGEST * logs / (3 * n)
            + math.sqrt((LARGEST * logs / (3 * n)) ** 2 + 2 * logs / n)
            + 1.2816 / math.sqrt(n),
        )
