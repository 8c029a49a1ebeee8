"""The ratio is flattened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect
from verify.residual import log_ratio


@dataclass(frozen=True)
class RatioRoot(PlantedRejection):
    """Keeps with probability min(1, (p / q) ** 0.5): a temperature on the log-ratio, biased by its excess."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="a mutant of Leviathan et al. 2211.17192, algorithm 1",
        note="a temperature applied to the ratio",
    )
    defect: ClassVar[Defect] = Defect(
        bug="a temperature is applied to the log-ratio",
        bias_a=0.1902928183986019,
        bias_b=0.1004794556732598,
        caught_by=("law", "first_token", "conditional", "excess_acceptance", "sequence"),
    )

    def log_accept(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """Half of the logarithm."""
        return log_ratio(value, target, draft).clamp(max=0) / 2
