"""The target samples its own tokens, and goes on for as long as the draft had guessed them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome


@dataclass(frozen=True)
class SamplerMatch:
    """Draw y ~ target, emit y on both branches, go on to the next node iff y is the drafted token.

    Exact for any draft source, since every emitted token is the target's own draw (lemma L4; llama.cpp and mlx-lm
    verify so). Acceptance: sum of draft times target. Raises TypeError on laws that are not Categorical, where nothing
    matches.
    """

    claim: ClassVar[Claim] = Claim(
        exact=True, reference="sampler match, as in llama.cpp and mlx-lm", needs="any", laws="categorical"
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The target's tokens up to the first that was not drafted. ``target`` has batch (rows, N + 1)."""
        if not isinstance(target, Categorical):
            raise TypeError(f"sampler_match needs a Categorical target and got {type(target).__name__}; use rejection")
        rows, nodes = draft.value.shape
        value = torch.cat([draft.value, draft.value[:, -1:]], 1)
        kept = torch.zeros(rows, nodes, dtype=torch.bool, device=value.device)
        alive = torch.arange(rows, device=value.device)
        for node in range(nodes + 1):
            if not len(alive):
                break
            value[alive, node] = target[alive, node].sample(tape[alive], f"token.{node}")
            if node < nodes:
                match = value[alive, node] == draft.value[alive, node]
                kept[alive, node] = match
                alive = alive[match]
        return Outcome(value, kept.sum(1) + 1, kept, target[:, :nodes].log_prob(draft.value))
