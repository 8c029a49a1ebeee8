"""The ratio is upside down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude, log_ratio


@dataclass(frozen=True)
class RatioInverted:
    """Keeps with probability min(1, q / p), the residual as usual."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="catalogue of mutants, M02",
        note="numerator and denominator exchanged",
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        nodes = draft.value.shape[1]
        log_accept = -log_ratio(draft.value, target[:, :nodes], draft.law)
        log_accept = log_accept.clamp(max=0)
        return conclude(draft, target, tape.coin("accept", log_accept.exp()), log_accept, tape)
