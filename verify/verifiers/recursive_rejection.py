"""Recursive rejection: independent siblings are tried one after the other, each against what the last one left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import log_ratio, residual_law
from verify.siblings import keep_first, laws_of_siblings, siblings


@dataclass(frozen=True)
class RecursiveRejection:
    """Keep sibling k with probability min(1, p_k / q), where p_1 = target, q = draft and p_{k+1} is (p_k - q)+,
    normalised; where all are refused, emit a token of what is left (SpecInfer 2305.09781, algorithm 2; lemma A6).

    Each step is rejection with the target p_k: the token has law p_k if sibling k is kept or p_{k+1} comes after it,
    and the steps before lead to p_k exactly when they refuse. So the siblings must be visited in the order they were
    drawn in: any order that looks at their values makes the next one no draw of q. The siblings may have laws of their
    own, as long as they are independent. Raises TypeError on laws that are not Categorical and ValueError for a draft
    that is not all siblings.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="SpecInfer 2305.09781, algorithm 2", laws="categorical")

    def parent(self, nodes: int) -> Tensor:
        """All nodes are guesses at the next token."""
        return siblings(nodes)

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """A kept sibling and a bonus, or one token. ``target`` has batch (rows, N + 1)."""
        after, prior = laws_of_siblings("recursive_rejection", draft, target)
        return recurse(draft, after, lambda node: prior[:, node], tape)

    def acceptance(self, target: Categorical, draft: Categorical, count: int) -> Tensor:
        """The probability that one of ``count`` siblings is kept, batch-wise: 1 - product of TV(p_k, q)."""
        refused, left = target.probs.new_ones(target.batch_shape), target
        for _ in range(count):
            refused = refused * (1 - left.overlap(draft))
            left = residual_law(left, draft)
        return 1 - refused


def recurse(draft: Draft, target: Categorical, law_of: Callable[[int], Categorical], tape: Tape) -> Outcome:
    """Recursive rejection of siblings of which each has the law ``law_of(node)`` (rows) given the earlier ones."""
    left, log_accept = target[:, 0], []
    for node in range(draft.value.shape[1]):
        prior = law_of(node)
        log_accept.append(log_ratio(draft.value[:, node], left, prior).clamp(max=0))
        left = residual_law(left, prior)
    chance = torch.stack(log_accept, 1)
    return keep_first(draft, target, tape.coin("accept", chance.exp()), chance, left, tape)
