"""Drafts are drawn from processed logits and labelled with raw ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.records import Claim, Defect, Draft
from verify.verifiers.sjd import Sjd


@dataclass(frozen=True)
class SjdUnprocessedLabel(Sjd):
    """The label of a draft is the law before its ``temperature``: p ** temperature, where p is what it was drawn from.

    Any rule that reads q from other logits than it draws with. Right at 1.
    """

    temperature: float = 0.7
    claim: ClassVar[Claim] = Claim(
        exact=False,
        level="sequence",
        laws="categorical",
        reference="SJD 2410.01699 with draft probabilities kept from before the processors",
        note="q must be the law that the draft was drawn from",
    )
    defect: ClassVar[Defect] = Defect(
        bug="drafts are drawn from processed logits and labelled with raw ones",
        bias_a=0.015508993311245204,
        bias_b=0.009474587542082087,
        caught_by=("sequence",),
    )

    def redraft(self, draft: Draft, target: Categorical, accept: Tensor, wanted: Tensor, tape: Tape) -> Draft:
        new = super().redraft(draft, target, accept, wanted, tape)
        raw = (target.probs / target.probs.amax(-1, keepdim=True)) ** self.temperature
        return Draft(new.value, Categorical(raw), new.parent)
