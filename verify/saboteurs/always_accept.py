"""Everything drafted is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect


@dataclass(frozen=True)
class AlwaysAccept(PlantedRejection):
    """Every node is kept: a token has the drafter's law, bias TV(p, q)."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="vllm-project/vllm-ascend #13730",
        note="uniforms replaced by 0.0",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "a missing random generator was replaced by u = 0, and log u = -inf is below every ratio (#13730, "
            "mended in #13766)"
        ),
        bias_a=0.6242318817864876,
        bias_b=0.2555379147160364,
        caught_by=("law", "first_token", "conditional", "support", "excess_acceptance", "sequence"),
    )

    def log_accept(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """Zero everywhere."""
        return torch.zeros(value.shape, dtype=torch.float64)
