"""The bonus token comes from one row too early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect, Draft


@dataclass(frozen=True)
class BonusPreviousRow(PlantedRejection):
    """Draws the bonus from the target's law of the last drafted position: seen only where every node is kept."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="a mutant of Leviathan et al. 2211.17192, algorithm 1",
        note="an index off by one",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the bonus row is off by one",
        bias_a=0.0935579704466219,
        bias_b=0.33772171481667856,
        caught_by=("law", "conditional", "support", "sequence"),
    )

    def rows(self, draft: Draft, target: Categorical) -> tuple[Draft, Categorical]:
        """The last row but one twice."""
        return draft, Categorical(torch.cat([target.probs[:, :-1], target.probs[:, -2:-1]], 1))
