"""Block verification with the residual of a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verify.planted import PlantedBlock
from verify.records import Claim, Defect


@dataclass(frozen=True)
class BlockTokenResidual(PlantedBlock):
    """Draws the replacement after i kept tokens from (p - q)+ in place of (w_i p - q)+: nothing is wrong where the kept
    prefix has weight 1, and little where it has not.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="vllm-project/vllm-ascend #7807",
        note="the smallest structural defect known",
    )
    defect: ClassVar[Defect] = Defect(
        bug="block verification drew the token rule's residual (#7807, mended in #7808)",
        bias_a=0.010296817785533959,
        bias_b=0.004135794248463911,
        caught_by=("law", "conditional", "sequence"),
    )

    def residual_log_weight(self, log_weight: Tensor) -> Tensor:
        """Weight 1."""
        return torch.zeros_like(log_weight)
