"""The replacement is drawn from the target itself."""

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
class ResidualTarget:
    """Draws the replacement from p in place of (p - q)+: bias of a token (1/2) || TV p - (p - q)+ ||_1."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="ml-explore/mlx-lm #1085",
        note="an accept test added to code that redraws from the target",
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        nodes = draft.value.shape[1]
        log_accept = log_ratio(draft.value, target[:, :nodes], draft.law).clamp(max=0)

        def replace(law: Law, other: Law, tape: Tape, site: str) -> torch.Tensor:
            assert isinstance(law, Categorical) and isinstance(other, Categorical)
            return tape.categorical(site, law.probs)

        return conclude(draft, target, tape.coin("accept", log_accept.exp()), log_accept, tape, replace)
