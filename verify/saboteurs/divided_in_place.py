"""Probabilities were divided by the noise that drew from them, and are read afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection
from verify.records import Claim, Defect


@dataclass(frozen=True)
class DividedInPlace(PlantedRejection):
    """Drawing x = argmax q / E in place leaves q / E, which the accept test then takes for q. Given that x won, E_x /
    q(x) = s is a standard exponential, the test is u < p(x) s, and x is kept with probability p(1 - exp(-1 / p)),
    whatever the draft is. The residual is computed from an intact copy here, without which it has no closed form.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="vllm-project/vllm #16952",
        note="an in-place division",
    )
    defect: ClassVar[Defect] = Defect(
        bug="probs.div_(noise) in the sampler destroyed the draft probabilities that rejection needs later (#16952)",
        bias_a=0.2630650720943642,
        bias_b=0.6084324222033634,
        caught_by=("law", "first_token", "conditional", "sequence"),
    )

    def log_accept(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """E[min(1, target(x) s)] for a standard exponential s."""
        chance = target.log_prob(value).exp()
        return (-chance * torch.expm1(-1 / chance)).log()
