"""The residual has a floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude, log_ratio


@dataclass(frozen=True)
class ResidualFloor:
    """Draws the replacement from max(p - q, 1e-5): bias about TV m / (TV + m) with m the mass of the floor."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="vllm-project/vllm #13933, caught in review",
        note="clamp(min=1e-5) in place of clamp(min=0)",
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        nodes = draft.value.shape[1]
        log_accept = log_ratio(draft.value, target[:, :nodes], draft.law).clamp(max=0)

        def replace(law: Law, other: Law, tape: Tape, site: str) -> torch.Tensor:
            assert isinstance(law, Categorical) and isinstance(other, Categorical)
            return tape.categorical(site, (law.probs - other.probs).clamp(min=1e-5))

        return conclude(draft, target, tape.coin("accept", log_accept.exp()), log_accept, tape, replace)
