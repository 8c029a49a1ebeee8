"""The residual goes through a softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect
from verify.residual import excess


@dataclass(frozen=True)
class ResidualSoftmax(PlantedRejection):
    """Draws the replacement from softmax((p - q)+), nearly uniform over the vocabulary."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="huggingface/transformers #27979, mended in #28508",
        note="softmax in place of a division by the sum",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the residual was normalised by softmax, unseen because every draft was accepted as well (#27979)",
        bias_a=0.2825803352970929,
        bias_b=0.1457985712186058,
        caught_by=("law", "first_token", "conditional", "support", "excess_acceptance", "sequence"),
    )

    def weights(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """softmax((target - draft)+)."""
        return excess(target, draft).softmax(-1)
