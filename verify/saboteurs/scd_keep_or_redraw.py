"""A later draft is kept as by the coupling, and otherwise drawn from the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import pad

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.jacobi import drawn
from verify.records import Claim, Defect, Draft
from verify.verifiers.scd import Scd


@dataclass(frozen=True)
class ScdKeepOrRedraw(Scd):
    """Keep with probability min(1, p / q), else draw from p and not from (p - q)+: no coupling, since it misses p.

    The draft then has the law min(p, q) + TV p, and is labelled p.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        level="sequence",
        laws="categorical",
        reference="SCD 2510.24211 with the residual left out of the redraft",
        note="a coupling needs the residual as much as a verification does",
    )
    defect: ClassVar[Defect] = Defect(
        bug="a later draft is kept as by the coupling, and otherwise drawn from the target",
        bias_a=0.02534895004760312,
        bias_b=0.004202125805552001,
        caught_by=("sequence",),
    )

    def redraft(self, draft: Draft, target: Categorical, accept: Tensor, wanted: Tensor, tape: Tape) -> Draft:
        value = drawn(target, wanted & ~pad(accept, (0, 1)), tape, "redraft")
        return Draft(value + pad(accept * draft.value, (0, 1)), target, draft.parent)
