"""The residual is taken at its mode."""

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
class ResidualArgmax:
    """Emits the most probable token of (p - q)+ in place of a draw from it."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="catalogue of mutants, M08",
        note="greedy replacement",
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        nodes = draft.value.shape[1]
        log_accept = log_ratio(draft.value, target[:, :nodes], draft.law).clamp(max=0)

        def replace(law: Law, other: Law, tape: Tape, site: str) -> torch.Tensor:
            assert isinstance(law, Categorical) and isinstance(other, Categorical)
            mode = (law.probs - other.probs).argmax(-1)
            return tape.categorical(site, torch.nn.functional.one_hot(mode, law.probs.shape[-1]).double())

        return conclude(draft, target, tape.coin("accept", log_accept.exp()), log_accept, tape, replace)
