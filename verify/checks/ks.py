"""Kolmogorov-Smirnov against a known law, with a bound that holds at every sample size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from verify.checks import Check, Statistic
from verify.records import CheckClaim, Finding
from verify.statistics.histogram import Histogram, TransformHistogram


def distances(columns: Tensor) -> np.ndarray:
    """D_n of each column of ``columns`` (n, m) from the uniform law: the largest gap of distribution functions."""
    ordered = np.sort(columns.T.contiguous().numpy(), axis=1)
    steps = np.arange(len(columns) + 1) / len(columns)
    gap: np.ndarray = np.maximum(steps[1:] - ordered, ordered - steps[:-1]).max(1)
    return gap


@dataclass(frozen=True)
class KolmogorovSmirnov(Check):
    """The largest gap D of distribution functions over the columns of the transform, at the edges of a fine grid.

    p-value min(1, 2 m exp(-2 n D^2)) over m columns (Dvoretzky, Kiefer and Wolfowitz 1956, with the constant of
    Massart 1990; D is at most D_n). ``bound`` is D + 2^-bits + sqrt(ln(1/delta) / (2n)), which exceeds the true
    distance at confidence 1 - ``delta`` whatever m is: the half-line where the truth departs most is fixed before the
    sample is drawn, so Hoeffding's inequality at that one event is enough; within a cell the uniform law gains no more
    than the cell's mass.
    """

    delta: float = 1e-6
    bits: int = 16
    name: ClassVar[str] = "ks"
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="a shift of mass along one column of the transform",
        blind_to="narrow bumps, far tails, dependence between columns or rows",
    )

    @property
    def statistic(self) -> Statistic:
        return TransformHistogram(self.bits)

    def judge(self, tally: Histogram, alpha: float) -> Finding:
        n, (width, cells) = tally.n, tally.counts.shape
        steps = torch.arange(1, cells + 1, dtype=torch.float64) / cells
        gap = tally.counts.cumsum(-1).double().div_(n).sub_(steps).abs_().amax(-1)
        worst = float(gap.max())
        return Finding(
            verifier="",
            scenario="",
            check=self.name,
            statistic=worst,
            p_value=min(1.0, 2 * width * math.exp(-2 * n * worst**2)),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"column {int(gap.argmax())} of {width} departs most",
            metric="ks",
            bound=min(1.0, worst + 1 / cells + math.sqrt(math.log(1 / self.delta) / (2 * n))),
            # At the half-line of the defect the count has a standard deviation of at most 1 / (2 sqrt n).
            smallest=(math.sqrt(math.log(2 * width / alpha) / 2) + 0.5 * 1.2816) / math.sqrt(n) + 1 / cells,
        )
