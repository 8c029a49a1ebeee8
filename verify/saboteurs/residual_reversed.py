"""The residual is turned round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect
from verify.residual import excess


@dataclass(frozen=True)
class ResidualReversed(PlantedRejection):
    """Draws the replacement from (q - p)+: a token has exactly the drafter's law, bias TV(p, q)."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="a mutant of Leviathan et al. 2211.17192, algorithm 1",
        note="operands exchanged",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the operands of the residual are exchanged",
        bias_a=0.586607468055538,
        bias_b=0.2521100212502849,
        caught_by=("law", "first_token", "conditional", "support", "excess_acceptance", "sequence"),
    )

    def weights(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """(draft - target)+."""
        return excess(draft, target)
