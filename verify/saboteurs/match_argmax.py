"""Greedy verification at a positive temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude


@dataclass(frozen=True)
class MatchArgmax:
    """Keeps a node iff it is the most probable token of the target, and otherwise redraws from the target."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="sgl-project/sglang #39253",
        note="a fall-back to argmax on one platform",
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        nodes = draft.value.shape[1]
        rows = target[:, :nodes]
        assert isinstance(rows, Categorical)
        log_accept = torch.where(draft.value == rows.probs.argmax(-1), 0.0, -torch.inf).double()

        def replace(law: Law, other: Law, tape: Tape, site: str) -> torch.Tensor:
            return law.sample(tape, site)

        return conclude(draft, target, tape.coin("accept", log_accept.exp()), log_accept, tape, replace)
