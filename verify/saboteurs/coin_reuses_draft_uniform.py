"""The uniform that drew the draft also tosses its coin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect
from verify.residual import log_ratio


@dataclass(frozen=True)
class CoinReusesDraftUniform(PlantedRejection):
    """The draft is the inverse CDF of q at u, and is kept iff u < p / q. Given x the uniform is uniform on [F(x - 1),
    F(x)), so x is kept with probability (min(1, p / q) - F(x - 1)) / q(x), cut to [0, 1]: low tokens are favoured.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="a mutant of Leviathan et al. 2211.17192, algorithm 1",
        note="noise shared by draft and coin (lemma L6)",
    )
    defect: ClassVar[Defect] = Defect(
        bug="one uniform serves the inverse-CDF draw of the draft and its accept test",
        bias_a=0.31138755502122123,
        bias_b=0.1798111512003513,
        caught_by=("law", "first_token", "conditional", "excess_acceptance", "sequence"),
    )

    def log_accept(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """P(u < ratio) given that the draft is the inverse CDF at u."""
        below = (draft.probs.cumsum(-1) - draft.probs).gather(-1, value.unsqueeze(-1)).squeeze(-1)
        bar = log_ratio(value, target, draft).exp().clamp(max=1)
        return ((bar - below) / draft.log_prob(value).exp()).clamp(0, 1).log()
