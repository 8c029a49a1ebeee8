"""A refused continuous draft is replaced by a draw of the target itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.planted_gaussian import PlantedThinning
from verify.records import Claim, Defect


@dataclass(frozen=True)
class GaussianResidualTarget(PlantedThinning):
    """Draws the replacement from p in place of (p - q)+: bias (1/2) || TV p - (p - q)+ ||_1."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="gaussian",
        reference="time-series patches, 2511.18191",
        note="an accept test, and the target's own draw where it fails",
    )
    defect: ClassVar[Defect] = Defect(
        bug="speculative decoding of continuous patches redraws from the target after a rejection",
        bias_a=0.14991864,
        bias_b=0.02233267,
        caught_by=("branches", "ks", "chi_square_32", "chi_square_512"),
        draft_length=1,
    )

    def replace(self, target: Law, draft: Law, tape: Tape, site: str) -> Tensor:
        """The target."""
        return target.sample(tape, site)
