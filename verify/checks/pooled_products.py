"""Dependence between the coordinates of a row: all pairs together, each of which may depend too little to show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scipy.special import chdtrc

from verify.checks import Check
from verify.checks.chi_square import effect
from verify.checks.products import Gram, LegendreProducts
from verify.records import CheckClaim, Finding


@dataclass(frozen=True)
class PooledProducts(Check):
    """n times the sum of the squared mean products of polynomials of two columns, over all pairs of columns.

    The products of ``products`` are uncorrelated with variance 1 under the truth, so the sum is chi-square in the
    limit. Two tests, each at half the level: of degrees (1, 1), as many as pairs, which is where location and rotation
    show; and of the others, three for each pair. ``smallest``: the root of the sum of squared correlations of degrees
    (1, 1).
    """

    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="many coordinates that depend a little: contamination, a common factor",
        blind_to="dependence among three or more coordinates, and of a higher degree",
    )

    @property
    def statistic(self) -> LegendreProducts:
        return LegendreProducts()

    def judge(self, tally: Gram, alpha: float) -> Finding:
        n = tally.n
        means, _, degrees = tally.pairs()
        linear = degrees.sum(0) == 2
        found = []
        for some in (means[linear], means[~linear]):
            total = n * float(some.square().sum())
            found.append((float(chdtrc(len(some), total)), total, len(some)))
        p_value, total, freedom = min(found)
        return Finding(
            verifier="",
            scenario="",
            check="pooled_products",
            statistic=total,
            p_value=min(1.0, 2 * p_value),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"{freedom} products of degree{'s 1 and 1' if p_value == found[0][0] else ' 2 in one or both'}",
            metric="correlation norm",
            smallest=effect(n, int(linear.sum()), alpha / 2),
        )
