"""Every continuous draft is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from verify.planted_gaussian import PlantedThinning
from verify.records import Claim, Defect


@dataclass(frozen=True)
class GaussianAlwaysAccept(PlantedThinning):
    """Every node is kept: a token has the drafter's law, bias TV(p, q)."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="gaussian",
        reference="vllm-project/vllm-ascend #13730, for continuous tokens",
        note="log u = -inf for u = 0 passes any test",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the coin's uniform is 0, so that its logarithm is below every ratio",
        bias_a=0.38292492,
        bias_b=0.03987761,
        caught_by=("excess_acceptance", "branches", "ks", "chi_square_32", "chi_square_512"),
        draft_length=1,
    )

    def log_accept(self, value: Tensor, target: Law, draft: Law) -> Tensor:
        """Zero everywhere."""
        return torch.zeros(value.shape[:2], dtype=torch.float64)
