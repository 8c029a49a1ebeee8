"""Rejection of drafts from a truncated law that are labelled with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.policies import top_half
from verify.records import Claim, Draft, Outcome
from verify.verifiers.rejection import Rejection


@dataclass(frozen=True)
class RejectionNarrowDraft(Rejection):
    """The draft's support is smaller than the target's: the other tokens come from the residual."""

    claim: ClassVar[Claim] = Claim(
        exact=True,
        laws="categorical",
        reference="huggingface/transformers #47961",
        note="a draft under top-k or top-p is right if its label is: the mended state of top_k_draft_raw_law",
    )

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        """What drafts are really drawn from."""
        return top_half(law)

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        return super().verify(Draft(draft.value, top_half(draft.law), draft.parent), target, tape)
