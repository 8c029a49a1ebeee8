"""A draft is matched with a sample, and the sample is thrown away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect


@dataclass(frozen=True)
class MatchRedraw(PlantedRejection):
    """Keeps x iff a draw y of the target is x, and otherwise draws again in place of emitting y: o = q p + (1 - sum q
    p) p. Kept as often as by sampler match, within the cap; but the second draw may be x as well.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="FasterDecoding/Medusa, nucleus posterior",
        note="redraws where it should emit its own draw",
    )
    defect: ClassVar[Defect] = Defect(
        bug="a sampled token is compared with the draft, and on a mismatch the next token is sampled afresh",
        bias_a=0.02190232218274215,
        bias_b=0.02912981547811587,
        caught_by=("law", "first_token", "conditional", "excess_acceptance", "sequence"),
    )

    def log_accept(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """The target draws the drafted token."""
        return target.log_prob(value)

    def weights(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """A second draw of the target."""
        return target.probs
