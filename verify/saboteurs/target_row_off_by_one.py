"""From the second node on, the target's rows are those of one node before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect, Draft


@dataclass(frozen=True)
class TargetRowOffByOne(PlantedRejection):
    """Node i > 1 is held against p after i - 2 drafted tokens. On rows that do not depend on their context nothing is
    wrong.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="huggingface/transformers #28166",
        note="an index off by one",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "an incorrect indexing operation in speculative decoding (#28166); rows misaligned in "
            "feifeibear/LLMSpeculativeSampling #29"
        ),
        bias_a=0.18711594089324385,
        bias_b=0.36986245587979294,
        caught_by=("law", "conditional", "support", "sequence"),
    )

    def rows(self, draft: Draft, target: Categorical) -> tuple[Draft, Categorical]:
        """The first row twice, the one before the bonus not at all."""
        return draft, Categorical(torch.cat([target.probs[:, :1], target.probs[:, :-2], target.probs[:, -1:]], 1))
