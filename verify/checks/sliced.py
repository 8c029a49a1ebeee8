"""Two samples compared along fixed directions: on the line, the two-sample test of Kolmogorov and Smirnov."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import gammaln
from torch import Tensor

from distributions.law import Law
from distributions.tape import GeneratorTape, Tape
from verify.checks import Check, Tally
from verify.records import CheckClaim, Finding
from verify.statistics.held_out import CHUNK
from verify.statistics.learned import Learned, Learner
from verify.statistics.pairs import pairs, pilot, typical

REACH = 5.0
"""The grid along a direction ends this many deviations of the pilot from its centre; what lies beyond is not parted."""


@dataclass(frozen=True, eq=False)
class Excesses(Tally):
    """``excess`` (L, cells), int64: rows of the sample less rows of the truth, in each cell of each direction."""

    excess: Tensor


@dataclass(frozen=True, eq=False)
class ProjectionHistograms(Learned):
    """Counts of the projections (x - ``centre``) . ``directions``, on ``cells`` equal cells of [-5, 5]."""

    centre: Tensor
    directions: Tensor
    cells: int

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> Excesses:
        first, second = pairs(sample, truth, tape)
        return Excesses(len(first), self._counts(first) - self._counts(second))

    def _counts(self, rows: Tensor) -> Tensor:
        slices, step = self.directions.shape[1], self.cells / (2 * REACH)
        first = torch.arange(slices) * self.cells
        counts = torch.zeros(slices * self.cells, dtype=torch.int64)
        for part in torch.split(rows, max(CHUNK, (1 << 16) // slices)):
            place = ((part - self.centre) @ (step * self.directions)).add_(self.cells / 2).clamp_(0, self.cells - 1)
            counts += torch.bincount((place.long() + first).flatten(), minlength=len(counts))
        return counts.reshape(slices, self.cells)


@dataclass(frozen=True, eq=False)
class SlicedKolmogorovSmirnov(Learned, Check):
    """The largest gap D of empirical distribution functions at the edges of a grid along each of L directions.

    n draws of each law on one line: P(n D >= k) = 2 sum over j >= 1 of (-1)^(j+1) C(2n, n - jk) / C(2n, n) if the law
    is continuous (Gnedenko and Korolyuk, Doklady 80, 1951), and no more on a grid or with atoms; Bonferroni over the
    directions. ``bound`` is D + sqrt(ln(1/delta) / n), at confidence 1 - ``delta`` above the true gap over these half-
    spaces, whatever their number: the one where the laws differ most is fixed before the samples are drawn
    (Hoeffding's inequality on both). Rows whose laws differ by row make the p-value conservative only in the limit.
    """

    centre: Tensor
    directions: Tensor
    cells: int = 1024
    delta: float = 1e-6
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="a shift of mass along some direction: means, scales, on the line any change that is not narrow",
        blind_to="dependence that leaves projections near normal, narrow bumps, far tails, changes within a cell",
    )

    @property
    def statistic(self) -> ProjectionHistograms:
        return ProjectionHistograms(self.centre, self.directions, self.cells)

    def judge(self, tally: Excesses, alpha: float) -> Finding:
        n, slices = tally.n, len(tally.excess)
        gaps = tally.excess.cumsum(-1).abs().amax(-1)
        steps, worst = int(gaps.max()), int(gaps.argmax())
        return Finding(
            verifier="",
            scenario="",
            check="sliced",
            statistic=steps / n,
            p_value=min(1.0, slices * gap_tail(n, steps)),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"direction {worst} of {slices} departs most",
            metric="ks",
            bound=min(1.0, steps / n + math.sqrt(math.log(1 / self.delta) / n)),
            # The tail is near 2 exp(-n D^2); at the half-space of the defect D has a deviation of at most 1/sqrt(2n).
            smallest=min(1.0, (math.sqrt(math.log(2 * slices / alpha)) + 1.2816 * math.sqrt(0.5)) / math.sqrt(n)),
        )


@dataclass(frozen=True)
class Sliced(Learner):
    """Directions drawn from ``seed``, uniform after the pooled pilot is whitened; on the line there is one.

    The grid along each is in units of the pilot's projections, so that it covers them.
    """

    directions: int = 64
    cells: int = 1024
    seed: int = 0

    def fit(self, sample: Tensor, truth: Tensor | Law, tape: Tape) -> SlicedKolmogorovSmirnov:
        pooled = torch.cat([rows[: 1 << 13] for rows in pilot(sample, truth, tape, 16)])
        centre, scale = typical(pooled)
        units = ((pooled - centre) / scale).clamp_(-REACH, REACH)
        dim = len(centre)
        if dim == 1:
            return SlicedKolmogorovSmirnov(centre, 1 / scale.unsqueeze(-1), self.cells)
        spread, axes = torch.linalg.eigh(units.T @ units / len(units))
        drawn = GeneratorTape(self.seed).normal("sliced.directions", (dim, self.directions))
        directions = (axes / spread.clamp(min=1e-6 * float(spread.max()) + 1e-12).sqrt()) @ drawn
        _, reach = typical(units @ directions)
        return SlicedKolmogorovSmirnov(centre, directions / reach / scale.unsqueeze(-1), self.cells)


def gap_tail(n: int, steps: int) -> float:
    """P(n D >= steps) of two samples of n draws of one continuous law, in closed form."""
    if steps <= 0:
        return 1.0
    below = np.arange(n - steps, -1, -steps, dtype=float)[:100]  # terms fall as exp(-j^2 k^2 / n)
    logs = 2 * gammaln(n + 1) - gammaln(below + 1) - gammaln(2 * n - below + 1)
    return float(np.clip(2 * (np.exp(logs) * (-1.0) ** np.arange(len(below))).sum(), 0.0, 1.0))
