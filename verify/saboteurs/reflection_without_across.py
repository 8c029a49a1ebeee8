"""A coupling along the line through the means that forgets what lies across it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from verify.gaussian.frame import Frame
from verify.planted_gaussian import PlantedReflection
from verify.records import Claim, Defect


@dataclass(frozen=True)
class ReflectionWithoutAcross(PlantedReflection):
    """A refused draft is answered with the point of the line at its mirrored place: right along the line, and nothing
    across. In 2 dimensions and more the line has no mass under p, so the bias is TV; on the line itself it is exact.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="gaussian",
        reference="a mutant of reflection coupling, De Bortoli et al. 2501.05370",
        note="a test of the projection on the mean difference alone cannot see it",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the coupled coordinate is put back without the orthogonal part of the draft",
        bias_a=0.38292492,
        bias_b=0.03987761,
        caught_by=("branches", "ks", "chi_square_32", "chi_square_512", "products"),
        draft_length=1,
    )

    def move(self, frame: Frame, value: Tensor, place: Tensor) -> Tensor:
        """From the draft's mean, which has no part across."""
        return frame.move(frame.draft.mean, place)
