"""Rejection of drafts from a wider law that are labelled with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.policies import widened
from verify.records import Claim, Draft, Outcome
from verify.verifiers.rejection import Rejection


@dataclass(frozen=True)
class RejectionWideDraft(Rejection):
    """The draft may be a token that the target excludes: it is then refused for certain."""

    claim: ClassVar[Claim] = Claim(
        exact=True,
        laws="categorical",
        reference="Leviathan et al. 2211.17192, algorithm 1",
        note="a drafter that proposes what the target's filters exclude need not be filtered itself",
    )

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        """What drafts are really drawn from."""
        return widened(law)

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        return super().verify(Draft(draft.value, widened(draft.law), draft.parent), target, tape)
