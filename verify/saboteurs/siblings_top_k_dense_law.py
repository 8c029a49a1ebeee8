"""The drafter's most probable tokens are verified as if they had been sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from verify.planted import PlantedSiblings, point
from verify.policies import finite
from verify.records import Claim, Defect


@dataclass(frozen=True)
class SiblingsTopKDenseLaw(PlantedSiblings):
    """The siblings are the drafter's most probable tokens in order, and recursive rejection reads the law q."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="ggml-org/llama.cpp #5625",
        note="point masses with the label of a dense law",
    )
    defect: ClassVar[Defect] = Defect(
        bug="top-k drafts need the point-mass rule; a dense law is claimed for them (#5625, taken up in #27694)",
        bias_a=0.3686999115095832,
        bias_b=0.7846484145492448,
        caught_by=("law", "first_token", "excess_acceptance", "sequence"),
    )

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        """The most probable token that no earlier sibling is."""
        probs = finite(law).probs
        place = min(earlier.shape[2], probs.shape[-1] - 1)
        return Categorical(point(probs.topk(place + 1, -1).indices[..., place], probs.shape[-1]))
