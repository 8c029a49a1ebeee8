"""The residual is cut to its nucleus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.jacobi import Index, categorical
from verify.records import Claim, Defect, Draft
from verify.residual import residual_law
from verify.verifiers.sjd import Sjd


@dataclass(frozen=True)
class SjdResidualTopP(Sjd):
    """The replacement is drawn from the smallest set of tokens with at least ``mass`` of the residual.

    Top-k may be applied to the residual again, whose support is no larger than p's; top-p cuts whatever it is given.
    """

    mass: float = 0.8
    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="tyshiwo1/Accelerating-T2I-AR-with-SJD at b389cfb, llamagen_solver.py:465-470, with top_p below 1",
        note="a nucleus is not idempotent",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the residual is cut to its nucleus",
        bias_a=0.03728737904368041,
        bias_b=0.050235928042969405,
        caught_by=("law", "first_token", "conditional", "sequence"),
    )

    def replacement(self, draft: Draft, target: Categorical, at: Index, tape: Tape) -> Tensor:
        """A token of the residual's nucleus."""
        law = residual_law(target[at], categorical(draft.law)[at]).probs
        heap, order = law.sort(-1, descending=True)
        heap = heap.masked_fill(heap.cumsum(-1) - heap >= self.mass, 0.0)
        return tape.categorical("residual", torch.zeros_like(law).scatter(-1, order, heap))
