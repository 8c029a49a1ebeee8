"""The ratio of two Gaussians without their deviations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from verify.planted_gaussian import PlantedThinning
from verify.records import Claim, Defect
from verify.residual import log_ratio
from verify.saboteurs.inner_temperature import log_volume


@dataclass(frozen=True)
class RatioWithoutVolume(PlantedThinning):
    """Keeps with min(1, c p / q), c = det(L_p) / det(L_q), the ratio of the exponentials alone; the residual as usual.

    For a narrower target c < 1, and it keeps less than it may: acceptance alone does not give it away. Where a narrower
    draft lies inside of the target it keeps everything. At one covariance c = 1, and it is exact.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="gaussian",
        reference="a mutant of 2411.11925, whose released code inverts this product",
        note="the exponentials are compared without the deviations that normalise them",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the log-ratio is a difference of squares: the logarithms of the deviations are left out",
        bias_a=0.26927613,
        bias_b=0.16282968,
        caught_by=("excess_acceptance", "ks", "chi_square_32", "chi_square_512", "products"),
        draft_length=1,
        covariance="unequal",
    )

    def log_accept(self, value: Tensor, target: Law, draft: Law) -> Tensor:
        """Squares only."""
        return (log_ratio(value, target, draft) + log_volume(target) - log_volume(draft)).clamp(max=0)
