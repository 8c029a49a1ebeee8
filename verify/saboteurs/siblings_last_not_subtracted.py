"""After the last sibling nothing is subtracted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distributions.categorical import Categorical
from verify.planted import PlantedSiblings
from verify.records import Claim, Defect


@dataclass(frozen=True)
class SiblingsLastNotSubtracted(PlantedSiblings):
    """Where all siblings are refused, draws from the law that the last one was held against, not from its residual."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="a mutant of SpecInfer 2305.09781, algorithm 2",
        note="a loop that is one step short",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the loop ends before the last residual is taken",
        bias_a=0.03751964712335314,
        bias_b=0.008931779347207288,
        caught_by=("law", "first_token", "sequence"),
    )

    def targets(self, target: Categorical, prior: Categorical) -> list[Categorical]:
        """The last law twice."""
        laws = super().targets(target, prior)
        return [*laws[:-1], laws[-2]]
