"""The bonus token comes from the drafter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.policies import finite
from verify.records import Claim, Defect, Draft


@dataclass(frozen=True)
class BonusFromDraft(PlantedRejection):
    """Draws the bonus from the drafter's last row: seen only where every node is kept."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="a mutant of Leviathan et al. 2211.17192, algorithm 1",
        note="the wrong model's logits for the bonus",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the wrong model's logits for the bonus",
        bias_a=0.07787425788748878,
        bias_b=0.3587098577723054,
        caught_by=("law", "conditional", "support", "sequence"),
    )

    def rows(self, draft: Draft, target: Categorical) -> tuple[Draft, Categorical]:
        """The drafter's last law in the target's last row."""
        prior = finite(draft.law)
        return draft, Categorical(torch.cat([target.probs[:, :-1], prior.probs[:, -1:]], 1))
