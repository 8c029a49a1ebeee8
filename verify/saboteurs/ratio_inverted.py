"""The ratio is upside down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect
from verify.residual import log_ratio


@dataclass(frozen=True)
class RatioInverted(PlantedRejection):
    """Keeps with probability min(1, q / p), the residual as usual."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="a mutant of Leviathan et al. 2211.17192, algorithm 1",
        note="numerator and denominator exchanged",
    )
    defect: ClassVar[Defect] = Defect(
        bug="numerator and denominator of the ratio are exchanged",
        bias_a=0.5826141228808246,
        bias_b=0.24875722901873212,
        caught_by=("law", "first_token", "conditional", "support", "excess_acceptance", "sequence"),
    )

    def log_accept(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """min(1, draft / target)."""
        return (-log_ratio(value, target, draft)).clamp(max=0)
