"""A probability that was set to zero for one node stays zero for the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from verify.planted import PlantedRejection, point
from verify.records import Claim, Defect


@dataclass(frozen=True)
class ZeroedInPlace(PlantedRejection):
    """The point-mass rule draws its replacement from the target without the drafted token x. Here the zero is written
    into a buffer that later nodes read as well: none of them can keep or emit a token drafted before it.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="vllm-project/vllm-ascend #2881",
        note="a view where a copy was needed",
    )
    defect: ClassVar[Defect] = Defect(
        bug=(
            "target_probs[x] was zeroed in place before it was cloned, so that later rows and requests read a "
            "corrupted law (#2881)"
        ),
        bias_a=0.003374027305285297,
        bias_b=0.004431923068429024,
        caught_by=("law", "conditional", "sequence"),
    )

    def log_accept(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """log target(x), nothing if it was drafted before."""
        gone = self._before(value, target).gather(-1, value.unsqueeze(-1)).squeeze(-1)
        return target.log_prob(value) + torch.log1p(-gone)

    def weights(self, value: Tensor, target: Categorical, draft: Categorical) -> Tensor:
        """The target without ``value`` and all that was drafted before it."""
        left = target.probs * (1 - self._before(value, target))
        return left.scatter(-1, value.unsqueeze(-1), 0.0)

    def _before(self, value: Tensor, target: Categorical) -> Tensor:
        drafted = point(value, target.probs.shape[-1])
        return (drafted.cumsum(1) - drafted).clamp(max=1)
