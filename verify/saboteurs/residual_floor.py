"""The residual has a floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect


@dataclass(frozen=True)
class ResidualFloor(PlantedRejection):
    """Draws the replacement from max(p - q, 1e-5): bias about TV m / (TV + m) with m the mass of the floor."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="vllm-project/vllm #13933, caught in review",
        note="clamp(min=1e-5) in place of clamp(min=0)",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "the residual was floored at 1e-5 to avoid a division by zero; over 150 000 tokens the floor "
            "outweighs it (#13933)"
        ),
        bias_a=4.405114650530218e-05,
        bias_b=0.0001359561289582666,
        caught_by=("law", "first_token", "conditional", "support", "excess_acceptance", "sequence"),
    )

    def weights(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """No less than 1e-5."""
        return (target.probs - draft.probs).clamp(min=1e-5)
