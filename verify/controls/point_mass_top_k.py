"""A draft from a truncated law, verified by the target's probability of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from verify.policies import top_half
from verify.records import Claim
from verify.verifiers.point_mass import PointMass


@dataclass(frozen=True)
class PointMassTopK(PointMass):
    """The point-mass rule on drafts drawn from the more probable half of the drafter's tokens (lemma L3)."""

    claim: ClassVar[Claim] = Claim(
        exact=True,
        needs="any",
        laws="categorical",
        reference="SafeAILab/EAGLE #283 and #329",
        note=(
            "the point-mass rule on top-k drafts was called lossy (#283, #329); sgl-project/sglang #9877 says it "
            "right: only acceptance drops"
        ),
    )

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        """What drafts are really drawn from."""
        return top_half(law)
