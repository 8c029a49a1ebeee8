"""How far from its mean a vector lies, in all coordinates at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from distributions.tape import Tape
from verify.checks import Check
from verify.checks.anderson_darling import AndersonDarling
from verify.checks.ks import KolmogorovSmirnov
from verify.records import CheckClaim, Finding
from verify.statistics.histogram import Histogram, histogram
from verify.statistics.transform import blocks, scores, signed_tails


@dataclass(frozen=True)
class RadiusHistogram:
    """The transform of |z|^2, z the normal scores: chi-square with m degrees, on 2^``bits`` cells of equal mass."""

    bits: int = 16

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> Histogram:
        parts = []
        for _, columns in blocks(scores, sample, truth, tape):
            half, shape = columns.square().sum(1, keepdim=True) / 2, torch.tensor(columns.shape[1] / 2).double()
            parts.append(signed_tails(torch.special.gammainc(shape, half), torch.special.gammaincc(shape, half)))
        return histogram(len(sample), parts, self.bits)


@dataclass(frozen=True)
class Radius(Check):
    """|z|^2 of the normal scores against its chi-square law: Kolmogorov-Smirnov and Anderson-Darling, half of the level
    each. Scales and correlations of any direction move it, as they change the squared length in the mean or in the
    tails. ``bound`` and ``smallest`` are those of Kolmogorov-Smirnov.
    """

    delta: float = 1e-6
    bits: int = 16
    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="wrong scales and covariances in any direction, outliers",
        blind_to="what keeps the length of a vector: rotations, and shifts that are small in every direction",
    )

    @property
    def statistic(self) -> RadiusHistogram:
        return RadiusHistogram(self.bits)

    def judge(self, tally: Histogram, alpha: float) -> Finding:
        gap = KolmogorovSmirnov(self.delta, self.bits).judge(tally, alpha / 2)
        weighted = AndersonDarling(self.bits).judge(tally, alpha / 2)
        smaller = min(gap, weighted, key=lambda item: item.p_value or 0.0)
        return replace(
            gap,
            check="radius",
            statistic=smaller.statistic,
            p_value=min(1.0, 2 * (smaller.p_value or 0.0)),
            alpha=alpha,
            note=f"by {smaller.check}",
        )
