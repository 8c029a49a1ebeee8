"""List matching: the target races on the noise of all siblings at once, and so meets one of them the more often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.races import list_given
from verify.records import Claim, Draft, Outcome
from verify.siblings import keep_first, laws_of_siblings, siblings


@dataclass(frozen=True)
class ListMatching:
    """Emit Y = argmin_i min_k E_i^k / p_i, where E^k are the exponentials that sibling k won with under the draft q,
    and a bonus after it where it is one of the siblings (2506.05632; lemma A11).

    The smallest of K independent exponentials, K times, is one too, so Y has the target's law p for any drafter. With
    one sibling it is the Gumbel race. The noise is seen in retrospect, as there: independent draws of one law are the
    winners of K races, and Y is drawn from its law given them, ``list_given``. All siblings must have one law. Raises
    TypeError on laws that are not Categorical and ValueError for a draft that is not all siblings.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="list matching, 2506.05632", laws="categorical")

    def parent(self, nodes: int) -> Tensor:
        """All nodes are guesses at the next token."""
        return siblings(nodes)

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """A kept sibling and a bonus, or one token. ``target`` has batch (rows, N + 1)."""
        after, prior = laws_of_siblings("list_matching", draft, target)
        law = _winner(draft.value, after.probs[:, 0], prior.probs[:, 0])
        winner = law.sample(tape, "winner").unsqueeze(-1)
        rest = Categorical(torch.zeros_like(law.probs).scatter(-1, winner, 1.0))
        return keep_first(draft, after, draft.value == winner, _log_accept(draft.value, law), rest, tape)


def _log_accept(value: Tensor, law: Categorical) -> Tensor:
    """The log-probability (rows, N) under ``law`` that each sibling is the winner, given that no earlier one is."""
    left, found = law.probs, []
    for token in value.unsqueeze(-1).unbind(1):
        total = left.sum(-1, keepdim=True)
        found.append(torch.where(total > 0, left.gather(-1, token) / torch.where(total > 0, total, 1.0), 0.0).log())
        left = left.scatter(-1, token, 0.0)
    return torch.cat(found, 1)


def _winner(value: Tensor, target: Tensor, draft: Tensor) -> Categorical:
    """``list_given`` of every row (rows, V), computed once for rows that differ in the order of siblings alone."""
    vocab = target.shape[-1]
    rows, which = torch.unique(torch.cat([target, draft, value.sort(-1).values], -1), dim=0, return_inverse=True)
    return Categorical(list_given(rows[:, 2 * vocab :].long(), rows[:, :vocab], rows[:, vocab : 2 * vocab])[which])
