"""Half of a migration: the point-mass rule accepts, and the old residual replaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect


@dataclass(frozen=True)
class AcceptTargetProbability(PlantedRejection):
    """Keeps with probability p(x), as for a draft that is a point mass, and draws the replacement from (p - q)+."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="a mutant of Leviathan et al. 2211.17192, algorithm 1",
        note="accepts as for a point mass, replaces as for a dense draft",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the accept step of the point-mass rule beside the residual of the dense one",
        bias_a=0.2630833997993236,
        bias_b=0.6080294333815017,
        caught_by=("law", "first_token", "conditional", "sequence"),
    )

    def log_accept(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """log target(x)."""
        return target.log_prob(value)
