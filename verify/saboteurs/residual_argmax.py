"""The residual is taken at its mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection, point
from verify.records import Claim, Defect


@dataclass(frozen=True)
class ResidualArgmax(PlantedRejection):
    """Emits the most probable token of (p - q)+ in place of a draw from it."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="a mutant of Leviathan et al. 2211.17192, algorithm 1",
        note="greedy replacement",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the replacement is the mode of the residual",
        bias_a=0.3532201694351735,
        bias_b=0.17682496317200497,
        caught_by=("law", "first_token", "conditional", "sequence"),
    )

    def weights(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """The mode of target - draft."""
        return point((target.probs - draft.probs).argmax(-1), target.probs.shape[-1])
