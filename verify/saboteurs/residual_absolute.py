"""The residual is |p - q|."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect


@dataclass(frozen=True)
class ResidualAbsolute(PlantedRejection):
    """Draws the replacement from |p - q|: a token has law (p + q) / 2, bias TV(p, q) / 2."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="a mutant of Leviathan et al. 2211.17192, algorithm 1",
        note="abs() in place of clamp(min=0)",
    )
    defect: ClassVar[Defect] = Defect(
        bug="abs() in place of clamp(min=0)",
        bias_a=0.293303734027769,
        bias_b=0.1260550106251425,
        caught_by=("law", "first_token", "conditional", "support", "excess_acceptance", "sequence"),
    )

    def weights(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """The absolute difference."""
        return (target.probs - draft.probs).abs()
