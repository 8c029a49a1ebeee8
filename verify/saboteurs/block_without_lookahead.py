"""Block verification whose coins do not look ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from verify.planted import PlantedBlock
from verify.records import Claim, Defect


@dataclass(frozen=True)
class BlockWithoutLookahead(PlantedBlock):
    """Keeps prefix i with the coin w_i in place of S_i / (S_i + 1 - w_i): more is kept than the rule allows."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="vllm-project/vllm-ascend #7603",
        note="the chance that a longer prefix is kept is left out",
    )
    defect: ClassVar[Defect] = Defect(
        bug="block verification accepted by the cumulative product of ratios alone (#7603, mended in #7839)",
        bias_a=0.10880903116766369,
        bias_b=0.0766675154528806,
        caught_by=("law", "first_token", "conditional", "excess_acceptance", "sequence"),
    )

    def chance(self, log_weight: Tensor, mass: Tensor) -> Tensor:
        """The weight itself."""
        return log_weight.exp()
