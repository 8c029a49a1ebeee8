"""The draft is drawn from a top-k law and labelled with the raw one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from verify.policies import top_half
from verify.records import Claim, Defect
from verify.verifiers.rejection import Rejection


@dataclass(frozen=True)
class TopKDraftRawLaw(Rejection):
    """The draft is drawn from the more probable half of the drafter's tokens, and q is the law before the cut: the
    ratio is too large by 1 / (mass of that half).
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="huggingface/transformers #47932, mended in #47961",
        note="processors applied to the draft and not to its label",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "two generators sampled from processed logits and returned raw ones as the draft's (#47932); the same "
            "in mlx-node #11"
        ),
        bias_a=0.13777886613840248,
        bias_b=0.2564686448266188,
        caught_by=("law", "first_token", "conditional", "excess_acceptance", "sequence"),
    )

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        """What drafts are really drawn from."""
        return top_half(law)
