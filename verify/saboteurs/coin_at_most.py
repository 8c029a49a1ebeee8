"""The coin is u <= a with a coarse u."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect
from verify.residual import log_ratio


@dataclass(frozen=True)
class CoinAtMost(PlantedRejection):
    """Keeps iff u <= min(1, p / q), where u = 0 has probability ``zeros``: what rounds up to 1 is put there, as in the
    bfloat16 uniforms of CUDA, whose values above 1 - 2^-9 do so. Acceptance min(1, p / q + zeros); with u < p / q it
    would be the same, except that a token of no mass would never be kept. Other values of u count as fine.
    """

    zeros: float = 2.0**-9
    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="sgl-project/sglang #35771, mended in #35798",
        note="a comparison that is not strict, and a uniform that is often 0",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "the test is coin <= probability with a coin in [0, 1): at 0 a token that top-k had removed is kept "
            "(#35771); a coarse uniform makes 0 likely"
        ),
        bias_a=0.0016289881739638954,
        bias_b=0.001769511331288816,
        caught_by=("law", "first_token", "conditional", "support", "excess_acceptance", "sequence"),
    )

    def log_accept(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """min(1, ratio + zeros)."""
        return (log_ratio(value, target, draft).exp() + self.zeros).clamp(max=1).log()
