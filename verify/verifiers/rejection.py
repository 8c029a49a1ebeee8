"""Token-level speculative sampling on any law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude, log_ratio


@dataclass(frozen=True)
class Rejection:
    """Keep each drafted node with probability min(1, target / draft); draw (target - draft)+ at the first rejection.

    Acceptance 1 - TV (lemma A1: Leviathan et al. 2211.17192, algorithm 1; Chen et al. 2302.01318, algorithm 2). The
    coin is strict, so a value to which the target gives no mass is never kept. The same lines serve a vocabulary, a
    density and a whole path: only ``log_prob`` and ``sample`` are asked of the laws.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="Leviathan et al. 2211.17192; Chen et al. 2302.01318")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        nodes = draft.value.shape[1]
        log_accept = log_ratio(draft.value, target[:, :nodes], draft.law).clamp(max=0)
        return conclude(draft, target, tape.coin("accept", log_accept.exp()), log_accept, tape)
