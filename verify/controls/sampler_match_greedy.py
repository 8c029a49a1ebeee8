"""A greedy draft, kept if the target's own draw is the same token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from verify.policies import greedy
from verify.records import Claim
from verify.verifiers.sampler_match import SamplerMatch


@dataclass(frozen=True)
class SamplerMatchGreedy(SamplerMatch):
    """The target's own draw is emitted whether it matches or not, so the draft cannot bias it (lemma L4)."""

    claim: ClassVar[Claim] = Claim(
        exact=True,
        needs="any",
        laws="categorical",
        reference="ml-explore/mlx-swift-lm #459",
        note=(
            "sampler match was said to favour modes (#459; z-lab/dflash #74, lablup/mlxcel #902, whose "
            "measurement in #992 retracts it)"
        ),
    )

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        """What drafts are really drawn from."""
        return greedy(law)
