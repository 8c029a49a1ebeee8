"""Greedy verification at a positive temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect


@dataclass(frozen=True)
class MatchArgmax(PlantedRejection):
    """Keeps a node iff it is the most probable token of the target, and otherwise redraws from the target."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="sgl-project/sglang #39253",
        note="a fall-back to argmax on one platform",
    )
    defect: ClassVar[Defect] = Defect(
        bug="verification falls back to argmax on one platform while the temperature is positive (#39253)",
        bias_a=0.028834450252862086,
        bias_b=0.1683802481820228,
        caught_by=("law", "first_token", "conditional", "sequence"),
    )

    def log_accept(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """0 at the target's mode."""
        return torch.where(value == target.probs.argmax(-1), 0.0, -torch.inf).double()

    def weights(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """The target itself."""
        return target.probs
