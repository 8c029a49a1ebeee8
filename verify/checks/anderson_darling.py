"""Anderson-Darling against a known law: the gap of distribution functions, with the weight that both tails deserve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from verify.checks import Check
from verify.records import CheckClaim, Finding
from verify.statistics.bridge import ANDERSON_DARLING, Integral
from verify.statistics.histogram import OCTAVES, Histogram, TransformHistogram


def reach(law: Integral, level: float) -> float:
    """The norm, times sqrt n, of a gap G - F that is seen nine times in ten at ``level``, whatever its shape.

    With ||.|| the norm of the statistic and w the largest weight of its law, n ||G_n - F||^2 is at least n ||G - F||^2
    + 2 sqrt n <G - F, B>, B near the Brownian bridge, and <G - F, B> has a variance of at most w ||G - F||^2.
    """
    spread = 1.2816 * math.sqrt(law.weight)
    return spread + math.sqrt(spread**2 + law.isf(level))


@dataclass(frozen=True)
class AndersonDarling(Check):
    """A^2 = n times the integral of (F_n(u) - u)^2 / (u (1 - u)), the largest over the columns, all known in advance.

    The integral is a sum over the edges of the grid and, in its first and last cell, of the octaves, so that counts are
    enough; either tail is counted from its own end. Under the null the sum departs from A^2 by h sqrt(2 ln(1 / h) / 3)
    and O(h), h = 2^-bits, in root mean square: between two edges the bridge wanders from its chord with variance
    (u - a) (b - u) / h. That is 5e-5 with 16 bits, 1e-4 for a hundred rows. p-value: the law of A^2 in the limit
    (``bridge``), times the number of columns. At n rows it errs by 0.013 / n at most where p is below 0.2 (Marsaglia
    and Marsaglia, Journal of Statistical Software 9, 2004, by 10^10 simulations).
    """

    bits: int = 16
    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="shifts, scales and tails of one column of the transform",
        blind_to="narrow bumps, dependence between columns or rows",
    )

    @property
    def statistic(self) -> TransformHistogram:
        return TransformHistogram(self.bits)

    def judge(self, tally: Histogram, alpha: float) -> Finding:
        n, (width, cells) = tally.n, tally.counts.shape
        edges, weights = _weights(cells)
        half = cells // 2
        total = torch.zeros(width, dtype=torch.float64)
        for side, counts in enumerate((tally.counts[:, :half], tally.counts[:, half:].flip(-1))):
            octaves = tally.tails[:, side].flip(-1).cumsum(-1)[:, :-1]
            below = torch.cat((octaves, counts.cumsum(-1)), -1)
            total += below.double().div_(n).sub_(edges).square_() @ weights
        worst = int(total.argmax())
        found = n * float(total[worst])
        return Finding(
            verifier="",
            scenario="",
            check="anderson_darling",
            statistic=found,
            p_value=min(1.0, width * ANDERSON_DARLING.sf(found)),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"column {worst} of {width} departs most",
            metric="anderson-darling distance",
            smallest=reach(ANDERSON_DARLING, alpha / width) / math.sqrt(n),
        )


@cache
def _weights(cells: int) -> tuple[Tensor, Tensor]:
    """The edges of the lower half, octaves first, and the integral of 1 / (u (1 - u)) from middle to middle."""
    octaves = 2.0 ** torch.arange(1 - OCTAVES, 0, dtype=torch.float64)
    edges = torch.cat((octaves, torch.arange(1, cells // 2 + 1, dtype=torch.float64))) / cells
    middles = torch.cat((edges[:1] / math.sqrt(2), (edges[1:] * edges[:-1]).sqrt(), edges[-1:]))
    return edges, torch.logit(middles).diff()
