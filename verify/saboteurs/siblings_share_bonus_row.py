"""The bonus comes from the row of another sibling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distributions.categorical import Categorical
from verify.planted import PlantedSiblings
from verify.records import Claim, Defect


@dataclass(frozen=True)
class SiblingsShareBonusRow(PlantedSiblings):
    """After any kept sibling the bonus is drawn from the target's law after the first one. The kept token is right."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="NVIDIA/TensorRT-LLM #15098",
        note="a row of the wrong node of the tree",
    )
    defect: ClassVar[Defect] = Defect(
        bug="rejection on a dynamic tree read an incorrect slice of the target's logits (#15098)",
        bias_a=0.04122943489657749,
        bias_b=0.031105627670342882,
        caught_by=("law", "conditional", "support", "sequence"),
    )

    def bonus(self, target: Categorical) -> Categorical:
        """The first sibling's row for all."""
        return target[:, [0] + [1] * (target.probs.shape[1] - 1)]
