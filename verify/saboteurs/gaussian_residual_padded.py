"""The thinning gives up after some tries, and pads with zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.planted_gaussian import PlantedThinning, thin_padded
from verify.records import Claim, Defect


@dataclass(frozen=True)
class GaussianResidualPadded(PlantedThinning):
    """A replacement that was not found in ``tries`` proposals is the zero vector: bias TV (1 - TV)^tries, an atom. It
    is the worse the better the drafter is, up to TV = 1 / (tries + 1).
    """

    tries: int = 100
    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="gaussian",
        reference="MarkXCloud/CSpD at d91f721",
        note="a cap on the tries, and rows left at zero",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the residual is tried 100 times, and rows that accept none of them stay zero vectors",
        bias_a=4.139e-22,
        bias_b=0.000681379,
        caught_by=("support",),
        draft_length=1,
    )

    def replace(self, target: Law, draft: Law, tape: Tape, site: str) -> Tensor:
        """(target - draft)+, or zero."""
        zero = torch.zeros((*target.batch_shape, *target.event_shape), dtype=torch.float64)
        return thin_padded(target, draft, tape, site, self.tries, zero)
