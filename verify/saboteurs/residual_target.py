"""The replacement is drawn from the target itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect


@dataclass(frozen=True)
class ResidualTarget(PlantedRejection):
    """Draws the replacement from p in place of (p - q)+: bias of a token (1/2) || TV p - (p - q)+ ||_1."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="ml-explore/mlx-lm #1085",
        note="an accept test added to code that redraws from the target",
    )
    defect: ClassVar[Defect] = Defect(
        bug="an accept test was added to code that redraws from the target after a mismatch (#1085, closed unmerged)",
        bias_a=0.16322213008517295,
        bias_b=0.12419342828483003,
        caught_by=("law", "first_token", "conditional", "excess_acceptance", "sequence"),
    )

    def weights(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """The target."""
        return target.probs
