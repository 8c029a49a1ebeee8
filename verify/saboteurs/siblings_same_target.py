"""Every sibling is held against the same target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distributions.categorical import Categorical
from verify.planted import PlantedSiblings
from verify.records import Claim, Defect
from verify.residual import residual_law


@dataclass(frozen=True)
class SiblingsSameTarget(PlantedSiblings):
    """Keeps each sibling with min(1, p / q), though the earlier ones were refused. With two siblings a token has the
    law of ``residual_target``.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="a mutant of SpecInfer 2305.09781, algorithm 2",
        note="the residual is subtracted once for all siblings",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the target is not updated between siblings",
        bias_a=0.15579774045206046,
        bias_b=0.08615251721234012,
        caught_by=("law", "first_token", "excess_acceptance", "sequence"),
    )

    def targets(self, target: Categorical, prior: Categorical) -> list[Categorical]:
        """The target for each, and its residual."""
        count = prior.probs.shape[1]
        return [target] * count + [residual_law(target, prior[:, -1])]
