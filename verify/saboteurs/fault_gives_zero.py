"""A row of NaN ends in token 0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection, filled, point
from verify.records import Claim, Defect
from verify.residual import excess


@dataclass(frozen=True)
class FaultGivesZero(PlantedRejection):
    """With probability ``faults`` the drafted row is NaN: the comparison is false, so the token is refused, and the
    residual is all zeros, so that its argmax is index 0, whatever the target thinks of it. Otherwise exact.
    """

    faults: float = 0.01
    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="vllm-project/vllm GHSA-8wr5-jm2h-8r4f",
        note="an empty residual has an argmax",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "NaN or empty probability rows gave a residual of zeros, whose argmax is token 0 or beyond the "
            "vocabulary (#45060, #50183, #53029)"
        ),
        bias_a=0.01254083738356115,
        bias_b=0.014450321091398639,
        caught_by=("law", "first_token", "conditional", "support", "excess_acceptance", "sequence"),
    )

    def log_accept(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """min(1, ratio), unless there is a fault."""
        return super().log_accept(value, target, draft) + math.log1p(-self.faults)

    def weights(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """Index 0 as far as a fault is why ``value`` was refused."""
        refused = 1 - super().log_accept(value, target, draft).exp().unsqueeze(-1)
        zero = point(torch.zeros_like(value), target.probs.shape[-1])
        left = filled(excess(target, draft), target).probs
        return self.faults * zero + (1 - self.faults) * refused * left
