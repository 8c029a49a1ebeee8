"""Logits are processed for the bonus token only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.policies import tempered
from verify.records import Claim, Defect, Draft


@dataclass(frozen=True)
class ProcessorsOnBonusOnly(PlantedRejection):
    """The target is a law at ``temperature``; its rows are processed for the bonus, while drafts and replacements are
    held against the law at temperature 1.
    """

    temperature: float = 0.7
    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="sgl-project/sglang #26330",
        note="two targets in one round",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "a custom logit processor, min_p or logit_bias acts on bonus tokens only, or not at all, while "
            "speculating (#26330, vllm #42744)"
        ),
        bias_a=0.08128204323045603,
        bias_b=0.13503939071591275,
        caught_by=("law", "first_token", "conditional", "excess_acceptance", "sequence"),
    )

    def rows(self, draft: Draft, target: Categorical) -> tuple[Draft, Categorical]:
        """All rows but the last at temperature 1."""
        raw = tempered(target[:, :-1], 1 / self.temperature)
        return draft, Categorical(torch.cat([raw.probs, target.probs[:, -1:]], 1))
