"""Kolmogorov-Smirnov along fixed random directions: what no single coordinate shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from distributions.tape import GeneratorTape, Tape
from verify.checks import Statistic
from verify.checks.ks import KolmogorovSmirnov
from verify.records import CheckClaim
from verify.statistics.histogram import Histogram, histogram
from verify.statistics.transform import blocks, normal_tails, scores


@dataclass(frozen=True)
class ProjectionHistogram:
    """Projections of the normal scores onto ``directions`` unit vectors, N(0, 1) each, on 2^``bits`` cells of equal
    mass. The vectors are drawn once and for all, the same for every sample of one dimension.
    """

    directions: int = 64
    bits: int = 14

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> Histogram:
        parts = (
            normal_tails(columns @ _directions(columns.shape[1], self.directions))
            for _, columns in blocks(scores, sample, truth, tape)
        )
        return histogram(len(sample), parts, self.bits)


@dataclass(frozen=True)
class Projections(KolmogorovSmirnov):
    """Kolmogorov-Smirnov of ``directions`` random projections of the normal scores, as of so many columns.

    A projection of N(0, I) onto a unit vector is N(0, 1), whatever the vector. ``bound`` is one for the projection
    that departs most.
    """

    bits: int = 14
    directions: int = 64
    name: ClassVar[str] = "projections"
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="shifts, scales and correlations that several coordinates share",
        blind_to="dependence that leaves projections nearly normal, narrow bumps",
    )

    @property
    def statistic(self) -> Statistic:
        return ProjectionHistogram(self.directions, self.bits)


@cache
def _directions(dim: int, count: int) -> Tensor:
    drawn = GeneratorTape(0).normal("projections.directions", (dim, count))
    unit: Tensor = drawn / torch.linalg.vector_norm(drawn, dim=0)
    return unit
