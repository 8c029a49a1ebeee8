"""Drafts against the law that they are said to come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.gaussian import FullGaussian, Gaussian
from distributions.tape import Tape
from verify.checks import Check
from verify.checks.products import legendre
from verify.decode import ranks
from verify.records import CheckClaim, Finding
from verify.statistics.scores import Scores, judged
from verify.statistics.trace import Trace, nothing
from verify.statistics.transform import uniforms

CELLS = 16
SKEW = (0.0, 2 * 5**1.5 / 35)
"""Third moments of the first two orthonormal Legendre polynomials: the second is sqrt(5) P_2, and E P_2^3 = 2 / 35."""


def draft_uniforms(sample: Trace, tape: Tape) -> Tensor | None:
    """The transform (rows, nodes, m) of every draft by its own law: independent uniforms if it was drawn from that.

    Only of nodes that are the first of their siblings, as later ones may be drawn without replacement. None for laws
    without conditional distribution functions.
    """
    if not isinstance(sample.draft, (Categorical, Gaussian, FullGaussian)):
        return None
    nodes = torch.nonzero(ranks(sample.parent) == 0).squeeze(1).tolist()
    return torch.stack([uniforms(sample.drafted[:, node], sample.draft[:, node], tape) for node in nodes], 1)


@dataclass(frozen=True)
class ProposalScores:
    """Sums of the first two Legendre polynomials of the drafts' transforms, and counts in 16 cells of the first."""

    def __call__(self, sample: Trace, truth: Any, tape: Tape) -> Scores:
        columns = draft_uniforms(sample, tape)
        if columns is None:
            empty = torch.zeros(2 + CELLS, dtype=torch.float64)
            return Scores(0, empty, empty, empty)
        flat = columns.flatten(0, 1)
        n, width = flat.shape
        total = torch.cat((legendre(flat).sum(0), _cells(flat[:, 0])))
        moment = torch.full((2 * width,), float(n), dtype=torch.float64)
        skew = torch.tensor(SKEW, dtype=torch.float64).repeat_interleave(width) * n
        chance = 1 / CELLS
        spread = torch.full((CELLS,), n * chance * (1 - chance), dtype=torch.float64)
        return Scores(n, total, torch.cat((moment, spread)), torch.cat((skew, spread * (1 - 2 * chance))))


def _cells(column: Tensor) -> Tensor:
    place = (column * CELLS).long().clamp(0, CELLS - 1)
    return torch.bincount(place, minlength=CELLS).double() - len(column) / CELLS


@dataclass(frozen=True)
class Proposal(Check):
    """Means and cells of the drafts' transforms, Bonferroni. Rules that weigh target against draft are exact only if
    the drafts follow the law that is named: a greedy draft with a dense law, or a stale row, biases every one of them.

    Not for rules that take any draft, nor for drafts carried over, which were drawn from an earlier law.
    """

    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="drafts drawn from another law than the one they come with: greedy, truncated, stale, tempered",
        blind_to="the verifier",
    )

    @property
    def statistic(self) -> ProposalScores:
        return ProposalScores()

    def judge(self, tally: Scores, alpha: float) -> Finding:
        if not tally.n:
            return nothing("proposal", "no draft whose law has a distribution function", alpha)
        width = (len(tally.total) - CELLS) // 2
        names = [f"degree {degree}, column {k}" for degree in (1, 2) for k in range(width)]
        names += [f"cell {k + 1} of {CELLS}" for k in range(CELLS)]
        return judged("proposal", names, tally, alpha, metric="mean of a Legendre polynomial of the drafts")
