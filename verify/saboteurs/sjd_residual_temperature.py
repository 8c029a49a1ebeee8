"""The residual passes through the temperature a second time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.jacobi import Index, categorical
from verify.records import Claim, Defect, Draft
from verify.residual import residual_law
from verify.verifiers.sjd import Sjd


@dataclass(frozen=True)
class SjdResidualTemperature(Sjd):
    """The replacement is drawn from (p - q)+ ** (1 / temperature), p and q being tempered already. Right at 1."""

    temperature: float = 0.7
    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="tyshiwo1/Accelerating-T2I-AR-with-SJD at b389cfb, lines 225-229, with transformers 4.46 or later",
        note="the warpers moved into the list of processors that the residual is sent through",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the residual passes through the temperature a second time",
        bias_a=0.04901648865412275,
        bias_b=0.03284563170466255,
        caught_by=("law", "first_token", "conditional", "sequence"),
    )

    def replacement(self, draft: Draft, target: Categorical, at: Index, tape: Tape) -> Tensor:
        """A token of the tempered residual."""
        law = residual_law(target[at], categorical(draft.law)[at]).probs
        return tape.categorical("residual", (law / law.amax(-1, keepdim=True)) ** (1 / self.temperature))
