"""The ratio is flattened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude, log_ratio


@dataclass(frozen=True)
class RatioRoot:
    """Keeps with probability min(1, (p / q) ** 0.5): a temperature on the log-ratio, biased by its excess."""

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="catalogue of mutants, M19",
        note="a temperature applied to the ratio",
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        nodes = draft.value.shape[1]
        log_accept = log_ratio(draft.value, target[:, :nodes], draft.law).clamp(max=0) / 2
        return conclude(draft, target, tape.coin("accept", log_accept.exp()), log_accept, tape)
