"""The coin is log u < log ratio with u in [0, 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from verify.planted_gaussian import PlantedThinning
from verify.records import Claim, Defect
from verify.residual import log_ratio


@dataclass(frozen=True)
class CoinLogZero(PlantedThinning):
    """Keeps iff log u < log(p / q) where u is a multiple of ``zeros`` in [0, 1), as a uniform of eight bits is of
    1 / 256: at u = 0 the logarithm is -inf, and any draft is kept, however far it lies. Acceptance
    ceil(min(1, p / q) / zeros) zeros, never less than ``zeros``; log(1 - u) would round it down. As it accepts at least
    min(1, p / q), the bias is the acceptance less 1 - TV (lemma L2).
    """

    zeros: float = 2.0**-8
    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="gaussian",
        reference="a mutant of reflection coupling, De Bortoli et al. 2501.05370",
        note="the logarithm of a coarse uniform that may be 0",
    )
    defect: ClassVar[Defect] = Defect(
        bug="log u is -inf at u = 0, which passes every test: of eight bits, that is one coin in 256",
        bias_a=0.00135007,
        bias_b=0.00101044,
        caught_by=("excess_acceptance", "branches"),
        draft_length=1,
    )

    def __post_init__(self) -> None:
        if not 0 < self.zeros <= 1:
            raise ValueError(f"zeros is {self.zeros}; give a probability above 0")

    def log_accept(self, value: Tensor, target: Law, draft: Law) -> Tensor:
        """Rounded up to the next multiple."""
        chance = log_ratio(value, target, draft).clamp(max=0).exp()
        return ((chance / self.zeros).ceil().clamp(min=1) * self.zeros).clamp(max=1).log()
