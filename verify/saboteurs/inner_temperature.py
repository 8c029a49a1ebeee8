"""The quadratic forms of the ratio are divided by a temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from verify.planted_gaussian import PlantedThinning
from verify.records import Claim, Defect
from verify.residual import log_ratio


@dataclass(frozen=True)
class InnerTemperature(PlantedThinning):
    """Keeps with min(1, (d_q / d_p) exp((Q_q - Q_p) / 2 T^2)), T the ``temperature``, Q the quadratic forms of draft
    and target and d their normalisers, which it leaves alone; the residual as usual. At one covariance this is
    (p / q)^(1 / T^2), a temperature on the ratio. Accepts at least min(1, p / q), so its bias is its acceptance less
    1 - TV (lemma L2): towards TV, that of keeping everything, as T grows.
    """

    temperature: float = 42.0
    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="gaussian",
        reference="MarkXCloud/CSpD at d91f721",
        note="inner_temperature = 42, squared, under both quadratic forms",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the acceptance test divides both quadratic forms by 42^2, which the paper (2411.11925) does not have",
        bias_a=0.38252951,
        bias_b=0.03985355,
        caught_by=("excess_acceptance", "branches", "ks", "chi_square_32", "chi_square_512"),
        draft_length=1,
    )

    def log_accept(self, value: Tensor, target: Law, draft: Law) -> Tensor:
        """The volumes as they are, the rest tempered."""
        volumes = log_volume(draft) - log_volume(target)
        return (volumes + (log_ratio(value, target, draft) - volumes) / self.temperature**2).clamp(max=0)


def log_volume(law: Law) -> Tensor:
    """log of the product of a Gaussian's deviations, the part of its normaliser that is its own; (*batch,)."""
    if isinstance(law, Gaussian):
        return law.scale.log().sum(-1)
    assert isinstance(law, FullGaussian)
    diagonal: Tensor = torch.linalg.diagonal(law.scale_tril).log().sum(-1)
    return diagonal
