"""Gumbel-shared Jacobi decoding that keeps a draft iff the target's own race picks it."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as changed
from typing import ClassVar

import torch

from distributions.law import Law
from distributions.tape import Tape
from verify.jacobi import Jacobi, categorical, columns_left, kept_noise, tested
from verify.records import Claim, Draft, Outcome


@dataclass(frozen=True)
class GsMatch(Jacobi):
    """Emit the winner of every column's race under its new law, and go on for as long as the drafts agree with it.

    The output is the sequence that ancestral sampling gives with the same noise, token by token, at any window and
    batch: an error in an implementation is a different token. Known as noise-frozen Jacobi or predictive sampling
    (Wiggers and Hoogeboom 2002.09928).
    """

    claim: ClassVar[Claim] = Claim(
        exact=True, laws="categorical", reference="Wiggers and Hoogeboom 2002.09928; Jacobi with frozen Gumbel noise"
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """Commit the winners up to the first that was not drafted. ``target`` has batch (rows, N + 1)."""
        target = categorical(target)
        draft = changed(draft, law=categorical(draft.law))
        noise = kept_noise(draft, target.probs.shape[-1], tape)
        wanted = tested(draft, target.batch_shape[1])
        token, noise = noise.winner(target.probs, tape, "race", wanted)
        match = (token[:, :-1] == draft.value) & wanted[:, :-1]
        kept = match.long().cumprod(1).bool()
        length = kept.sum(1) + 1
        log_accept = torch.where(match, 0.0, -torch.inf).double()  # the noise decides: nothing is left to chance
        new = Draft(token, target, draft.parent, noise)
        return Outcome(token, length, kept, log_accept, self.slide(new, length, columns_left(draft), tape))
