"""The replacement is the race of the noise that drew the draft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.jacobi import Index, categorical
from verify.records import Claim, Defect, Draft
from verify.residual import residual_law
from verify.verifiers.scd_gumbel import ScdGumbel


@dataclass(frozen=True)
class ScdGumbelResidualNoise(ScdGumbel):
    """Replace a rejected draft by argmax(log (p - q)+ + g) with the column's own g, which knows that the draft won."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="SCD 2510.24211 with the column's noise in its residual",
        note="residual noise must be independent of the draft's",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the replacement is the race of the noise that drew the draft",
        bias_a=0.03693755317637701,
        bias_b=0.01286502215109974,
        caught_by=("law", "first_token", "conditional", "sequence"),
    )

    def replacement(self, draft: Draft, target: Categorical, at: Index, tape: Tape) -> Tensor:
        """The winner of the old race under the residual."""
        assert draft.noise is not None
        law = residual_law(target[at], categorical(draft.law)[at])
        return draft.noise[at].winner(law.probs, tape, "residual")[0]
