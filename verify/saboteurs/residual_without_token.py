"""Half of a migration: the dense rule accepts, and the point-mass residual replaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect


@dataclass(frozen=True)
class ResidualWithoutToken(PlantedRejection):
    """Keeps with probability min(1, p / q) and draws the replacement from the target without the drafted token."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="a mutant of Leviathan et al. 2211.17192, algorithm 1",
        note="accepts as for a dense draft, replaces as for a point mass",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the residual of the point-mass rule beside the accept step of the dense one",
        bias_a=0.14660323691884214,
        bias_b=0.1158107608432854,
        caught_by=("law", "first_token", "conditional", "sequence"),
    )

    def weights(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """The target without ``value``."""
        return target.probs.scatter(-1, value.unsqueeze(-1), 0.0)
