"""The noise that drew the draft also draws its replacement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection, filled
from verify.races import race_given
from verify.records import Claim, Defect
from verify.residual import excess


@dataclass(frozen=True)
class ResidualReusesRace(PlantedRejection):
    """The draft x is argmin E_i / q_i, and after a rejection argmin E_i / (p - q)+_i is emitted with the same E. Tokens
    that nearly won the draft have small E, those that lost it have large ones; given x, the law is ``race_given``.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="vllm-project/vllm #47386, mended in #54282",
        note="noise shared by draft and replacement (lemma L6)",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "draft and replacement drew Gumbel noise with one seed and position (#47386); it came back in forks "
            "(vllm-ascend #15739)"
        ),
        bias_a=0.03693755317637703,
        bias_b=0.012865022151099722,
        caught_by=("law", "first_token", "conditional", "sequence"),
    )

    def weights(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """The residual's winner, given that ``value`` won the draft's race."""
        left = filled(excess(target, draft), target)
        return race_given(value, left.probs, draft.probs)
