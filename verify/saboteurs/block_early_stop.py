"""Block verification that stops at the first failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from verify.planted import PlantedBlock
from verify.records import Claim, Defect


@dataclass(frozen=True)
class BlockEarlyStop(PlantedBlock):
    """Keeps the nodes before the first coin that failed, and not the longest prefix whose coin succeeded: fewer are
    kept, and the output is wrong.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="vllm-project/vllm-ascend #11985, proposed in review",
        note="the scan must not stop at a failure",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "an automatic reviewer demanded that everything after the first failed coin be rejected (#11985); the "
            "code was right"
        ),
        bias_a=0.14772327527869494,
        bias_b=0.2344198975398361,
        caught_by=("law", "first_token", "conditional", "sequence"),
    )

    def keep(self, coins: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        """Every coin is looked at in turn."""
        return coins, chance.log()
