"""Cramer-von Mises against a known law: the mean squared gap of distribution functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from verify.checks import Check
from verify.checks.anderson_darling import reach
from verify.records import CheckClaim, Finding
from verify.statistics.bridge import CRAMER_VON_MISES
from verify.statistics.histogram import Histogram, TransformHistogram


@dataclass(frozen=True)
class CramerVonMises(Check):
    """W^2 = n times the mean of (F_n(u) - u)^2 over the edges of a fine grid, the largest over the columns.

    Under the null it departs from the integral by h / sqrt 18 or so, h = 2^-bits. p-value: the law of W^2 in the limit
    (``bridge``), times the number of columns. ``bound``: the root mean squared gap on the grid is the largest mean of
    the functions f(x) = h sum of g_k 1(x <= u_k) with h sum g_k^2 = 1, whose range is at most 1, and the one that the
    truth makes largest is fixed before the sample is drawn; so W / sqrt n + sqrt(ln(1/delta) / (2n)) exceeds it at
    confidence 1 - ``delta``, by Hoeffding's inequality, at every n.
    """

    delta: float = 1e-6
    bits: int = 16
    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="a shift of mass along one column of the transform, its middle above all",
        blind_to="narrow bumps, far tails, dependence between columns or rows",
    )

    @property
    def statistic(self) -> TransformHistogram:
        return TransformHistogram(self.bits)

    def judge(self, tally: Histogram, alpha: float) -> Finding:
        n, (width, cells) = tally.n, tally.counts.shape
        edges = torch.arange(1, cells + 1, dtype=torch.float64) / cells
        square = tally.counts.cumsum(-1).double().div_(n).sub_(edges).square_().mean(-1)
        worst = int(square.argmax())
        found = float(square[worst])
        return Finding(
            verifier="",
            scenario="",
            check="cramer_von_mises",
            statistic=n * found,
            p_value=min(1.0, width * CRAMER_VON_MISES.sf(n * found)),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"column {worst} of {width} departs most",
            metric="rms gap",
            bound=min(1.0, math.sqrt(found) + math.sqrt(math.log(1 / self.delta) / (2 * n))),
            smallest=reach(CRAMER_VON_MISES, alpha / width) / math.sqrt(n),
        )
