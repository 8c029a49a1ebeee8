"""The mirror stands in a mean instead of half-way between the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from verify.planted_gaussian import PlantedReflection
from verify.records import Claim, Defect


@dataclass(frozen=True)
class ReflectionAboutMean(PlantedReflection):
    """Mirrors a refused draft about the draft's mean, to -s, or with ``of_target`` about the target's, to 2 delta - s,
    in place of delta - s. The residual r = (phi(s - delta) - phi(s))+ is thereby moved by delta to one side or to the
    other: bias (1/2) int |r(s) - r(s - delta)| ds, the same for both.
    """

    of_target: bool = False
    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="gaussian",
        reference="a mutant of reflection coupling, De Bortoli et al. 2501.05370",
        note="y = mean + (I - 2 e e^T) (x - mean) with one mean for both",
    )
    defect: ClassVar[Defect] = Defect(
        bug="a refused draft is reflected about one mean: the right map takes the draft's mean to the target's",
        bias_a=0.20674369,
        bias_b=0.00241568,
        caught_by=("branches", "ks", "chi_square_32", "chi_square_512"),
        draft_length=1,
    )

    def place(self, place: Tensor, distance: Tensor) -> Tensor:
        """-s, or 2 delta - s."""
        return 2 * distance - place if self.of_target else -place
