"""Siblings are tried in the order of the drafter's probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedSiblings
from verify.records import Claim, Defect, Draft


@dataclass(frozen=True)
class SiblingsSortedByDraft(PlantedSiblings):
    """Tries the sibling first that the drafter likes best. In this order the siblings are no independent draws of q."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="ggml-org/llama.cpp #5625",
        note="drawing order is lost",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "siblings of a draft tree are visited in a fixed order and not as they were drawn (#5625, questioned "
            "in review)"
        ),
        bias_a=0.07264120106494543,
        bias_b=0.2355828755190471,
        caught_by=("law", "first_token", "excess_acceptance", "record", "sequence"),
    )

    def order(self, draft: Draft, target: Categorical) -> Tensor:
        """By falling draft."""
        return draft.law.log_prob(draft.value).argsort(stable=True, dim=1, descending=True)
