"""The last tokens are drawn one by one with one vector of Gumbel noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.jacobi import columns_left
from verify.records import Claim, Draft, Outcome
from verify.verifiers.scd_gumbel import ScdGumbel


@dataclass(frozen=True)
class ScdGumbelTail(ScdGumbel):
    """Once ``tail`` tokens or fewer are left, each is the race of the first column's noise, which no longer moves on.

    The release draws its first four tokens and the last ten or so of an image in this way. Where the end is not known,
    or nothing but one round is asked for, there is no tail.
    """

    tail: int = 3
    claim: ClassVar[Claim] = Claim(
        exact=False,
        level="sequence",
        laws="categorical",
        reference="junhyukso/SCD at 7322379, jacobi_iteration_lumina_mgpt_GS.py:1193",
        note="the table of noise is shifted in rounds that commit two tokens or more, and not in one-token ones",
    )

    def turn(self, draft: Draft, target: Categorical, tape: Tape) -> Outcome:
        """As the round of SCD, and for rows in the tail one token and an unmoved noise."""
        made, ends = super().turn(draft, target, tape), columns_left(draft)
        late = ((ends <= self.tail) & (ends > 0)).squeeze(1)
        if not bool(late.any()):
            return made
        assert draft.noise is not None and made.carry is not None and made.carry.noise is not None
        token, noise = draft.noise[:, 0].winner(target.probs[:, 0], tape, "tail", late)
        value, carry = made.value.clone(), made.carry
        value[late, 0] = token[late]
        first = late.unsqueeze(1) & (torch.arange(draft.value.shape[1]) == 0)
        unmoved = made.carry.noise.put(first, noise[late])
        return Outcome(
            value,
            torch.where(late, 1, made.length),
            made.kept & ~late.unsqueeze(1),
            made.log_accept.masked_fill(late.unsqueeze(1), -torch.inf),
            Draft(carry.value.masked_fill(late.unsqueeze(1), 0), carry.law, carry.parent, unmoved),
        )
