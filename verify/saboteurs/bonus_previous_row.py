"""The bonus token comes from one row too early."""

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
class BonusPreviousRow:
    """Draws the bonus from the target's law of the last drafted position: seen only where every node is kept."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="catalogue of mutants, M28",
        note="an index off by one",
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        nodes = draft.value.shape[1]
        log_accept = log_ratio(draft.value, target[:, :nodes], draft.law).clamp(max=0)
        assert isinstance(target, Categorical)
        target = Categorical(torch.cat([target.probs[:, :-1], target.probs[:, -2:-1]], 1))
        return conclude(draft, target, tape.coin("accept", log_accept.exp()), log_accept, tape)
