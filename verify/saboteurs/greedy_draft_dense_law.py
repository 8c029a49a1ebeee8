"""A greedy draft is verified as if it had been sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from verify.policies import greedy
from verify.records import Claim, Defect
from verify.verifiers.rejection import Rejection


@dataclass(frozen=True)
class GreedyDraftDenseLaw(Rejection):
    """The draft is the drafter's most probable token, and ratio and residual read the whole law q."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="huggingface/transformers #32867, mended in #33534",
        note="a point mass with the label of a dense law",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "the assistant was made greedy for speed (#30778) while the ratio kept reading its probabilities "
            "(#32867); the same of beams, apple/ml-recurrent-drafter #6"
        ),
        bias_a=0.29520821865010594,
        bias_b=0.8545635468978416,
        caught_by=("law", "first_token", "conditional", "excess_acceptance", "sequence"),
    )

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        """What drafts are really drawn from."""
        return greedy(law)
