"""The residual goes through a softmax."""

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
class ResidualSoftmax:
    """Draws the replacement from softmax((p - q)+), nearly uniform over the vocabulary."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="huggingface/transformers #27979, mended in #28508",
        note="softmax in place of a division by the sum",
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        nodes = draft.value.shape[1]
        log_accept = log_ratio(draft.value, target[:, :nodes], draft.law).clamp(max=0)

        def replace(law: Law, other: Law, tape: Tape, site: str) -> torch.Tensor:
            assert isinstance(law, Categorical) and isinstance(other, Categorical)
            return tape.categorical(site, (law.probs - other.probs).clamp(min=0).softmax(-1))

        return conclude(draft, target, tape.coin("accept", log_accept.exp()), log_accept, tape, replace)
