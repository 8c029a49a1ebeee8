"""Every draft is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude


@dataclass(frozen=True)
class AlwaysAccept:
    """Keeps every drafted node: the uniform is zero, or no comparison is made. Emits the drafter; bias TV(p, q)."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="vllm-project/vllm-ascend #13730",
        note="uniforms replaced by 0.0",
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        log_accept = torch.zeros(draft.value.shape[:2], dtype=torch.float64)
        return conclude(draft, target, tape.coin("accept", log_accept.exp()), log_accept, tape)
