"""The draft is drawn in half precision and labelled in full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from verify.policies import rounded
from verify.records import Claim, Defect
from verify.verifiers.rejection import Rejection


@dataclass(frozen=True)
class DraftHalfPrecision(Rejection):
    """The draft is drawn from q rounded to bfloat16, and ratio and residual read q as it was."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="deepseek-ai/DeepSpec #31, pull request #30",
        note="eight significant bits in the draft, and more in its label",
    )
    defect: ClassVar[Defect] = Defect(
        bug="drafts are sampled from a softmax in the model's bfloat16, the ratio reads one in float32 (#31)",
        bias_a=0.00038397490202513984,
        bias_b=0.000755903905437916,
        caught_by=("law", "first_token", "conditional", "excess_acceptance", "sequence"),
    )

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        """What drafts are really drawn from."""
        return rounded(law)
