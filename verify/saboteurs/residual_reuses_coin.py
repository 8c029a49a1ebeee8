"""The uniform that refused a draft also draws its replacement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection, filled
from verify.records import Claim, Defect
from verify.residual import excess


@dataclass(frozen=True)
class ResidualReusesCoin(PlantedRejection):
    """After u >= a = min(1, p / q) the replacement is the inverse CDF of the residual at the same u, which is now
    uniform on [a, 1): token i has the part of [F(i - 1), F(i)) that lies there, and high tokens are favoured.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="flashinfer-ai/flashinfer #425",
        note="noise shared by coin and replacement (lemma L6)",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "uniforms were not unique across positions (#424, mended in #425); in this reading the accept test "
            "and the draw after it share one"
        ),
        bias_a=0.12128753384173711,
        bias_b=0.11684230730756111,
        caught_by=("law", "first_token", "conditional", "sequence"),
    )

    def weights(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """What [a, 1) holds of the residual's CDF."""
        right = filled(excess(target, draft), target).probs.cumsum(-1)
        left = torch.nn.functional.pad(right[..., :-1], (1, 0))
        bar = self.log_accept(value, target, draft).exp().unsqueeze(-1)
        return (right - torch.maximum(left, bar)).clamp(min=0)
