"""Recursive rejection of siblings that are drawn without replacement, so that no guess is wasted on a tried token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.siblings import laws_of_siblings, siblings
from verify.verifiers.recursive_rejection import recurse


@dataclass(frozen=True)
class RecursiveRejectionDistinct:
    """Keep sibling k with probability min(1, p_k / q_k), where q_k is the draft without the tokens already tried, and
    p_{k+1} is (p_k - q_k)+, normalised (Jeon et al. 2402.14160; lemma A6).

    Exact as recursive rejection is: given the earlier siblings, sibling k has the law q_k. A refused token is never
    seen again, since p_{k+1} is 0 where q_k exceeds p_k. Where the drafter has no token left, the next sibling is drawn
    uniformly from the tokens not tried yet, so that as many siblings as there are tokens are never all refused; and
    from the drafter's law again once every token was tried. Both are the laws used here, so the rule stays exact.
    Raises TypeError on laws that are not Categorical and ValueError for a draft that is not all siblings.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="Jeon et al. 2402.14160", laws="categorical")

    def parent(self, nodes: int) -> Tensor:
        """All nodes are guesses at the next token."""
        return siblings(nodes)

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        """``law`` without the ``earlier`` siblings (rows, n, rank): see above for where nothing of it is left."""
        if not isinstance(law, Categorical):
            raise TypeError(f"siblings without replacement need a Categorical law and not a {type(law).__name__}")
        untried = torch.ones_like(law.probs).scatter(-1, earlier.long(), 0.0)
        left = torch.where((law.probs * untried).sum(-1, keepdim=True) > 0, law.probs * untried, untried)
        return Categorical(torch.where(left.sum(-1, keepdim=True) > 0, left, law.probs))

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """A kept sibling and a bonus, or one token. ``target`` has batch (rows, N + 1)."""
        after, prior = laws_of_siblings("recursive_rejection_distinct", draft, target)

        def law_of(node: int) -> Categorical:
            law = self.drafts(prior[:, [node]], draft.value[:, None, :node])
            assert isinstance(law, Categorical)
            return law[:, 0]

        return recurse(draft, after, law_of, tape)
