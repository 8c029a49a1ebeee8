"""One uniform for all nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect
from verify.residual import log_ratio


@dataclass(frozen=True)
class CoinSharedByNodes(PlantedRejection):
    """Node i is kept iff u < a_i with one u for the block, so a block is kept up to i with probability min(a_1, ...,
    a_i): once a low a was passed, later nodes are kept too often. A draft of one node shows nothing.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="flashinfer-ai/flashinfer #424",
        note="noise shared by the coins of a block (lemma L6)",
    )
    defect: ClassVar[Defect] = Defect(
        bug="a missing barrier let positions of one block read the same uniform (#424, mended in #425)",
        bias_a=0.0628840591067563,
        bias_b=0.03538523471439486,
        caught_by=("law", "conditional", "sequence"),
    )

    def log_accept(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """The conditional of a running minimum."""
        least = log_ratio(value, target, draft).clamp(max=0).cummin(1).values
        before = torch.nn.functional.pad(least[:, :-1], (1, 0))
        return torch.where(torch.isneginf(least), least, least - before)
