"""Siblings are tried in the order of the target's probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedSiblings
from verify.records import Claim, Defect, Draft


@dataclass(frozen=True)
class SiblingsSortedByTarget(PlantedSiblings):
    """Tries the most probable sibling first. In this order the siblings are no independent draws of q."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="a mutant of SpecInfer 2305.09781, algorithm 2",
        note="drawing order is lost",
    )
    defect: ClassVar[Defect] = Defect(
        bug="siblings are sorted by the target before they are tried",
        bias_a=0.07264120106494532,
        bias_b=0.21383134619956434,
        caught_by=("law", "first_token", "excess_acceptance", "record", "sequence"),
    )

    def order(self, draft: Draft, target: Categorical) -> Tensor:
        """By falling target."""
        return target[:, :1].log_prob(draft.value).argsort(stable=True, dim=1, descending=True)
