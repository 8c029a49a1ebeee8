"""The target's race on the draft's own noise: both sample by the same exponentials and so often agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.races import race_given
from verify.records import Claim, Draft, Outcome
from verify.verifiers.block import both_categorical
from verify.verifiers.sampler_match import SamplerMatch


@dataclass(frozen=True)
class GumbelRace:
    """Emit the target's winner on the exponentials that the drafted token won with, and go on iff it is that token
    (Daliri, Musco and Suresh 2408.07978; lemma A10).

    With E_i independent standard exponentials, argmin E_i / q_i has the draft's law q and y = argmin E_i / p_i the
    target's law p, at every node, so that the output is exact whatever the drafter is. Kept with probability
    ``race_match``, at least (1 - TV) / (1 + TV) and at most 1 - TV.

    A sampler draws the noise first and the draft from it. Here the draft is there first, and y is drawn from its law
    given the drafted token, ``race_given``: the noise seen in retrospect. Draft and output have the same joint law
    either way, and this one has finitely many values. What is lost is that one seed gives one output for any drafter.
    Raises TypeError on laws that are not Categorical.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="Daliri, Musco and Suresh 2408.07978", laws="categorical")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The winners up to the first that was not drafted. ``target`` has batch (rows, N + 1)."""
        after, prior = both_categorical("gumbel_race", target, draft)
        winner = race_given(draft.value, after.probs[:, :-1], prior.probs)
        return SamplerMatch().verify(draft, Categorical(torch.cat([winner, after.probs[:, -1:]], 1)), tape)
