"""Recursive rejection down a tree: the siblings of one level, then those below the kept one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import log_ratio, residual_law
from verify.tree import breadth_first, emit_path
from verify.verifiers.block import both_categorical
from verify.verifiers.recursive_rejection_distinct import RecursiveRejectionDistinct


@dataclass(frozen=True)
class TopDown:
    """Try the children of the root as recursive rejection does, then those of the kept one, and so on down; where all
    children are refused emit a token of what they left (SpecInfer 2305.09781, algorithm 2; lemma A6).

    Exact level by level: what is decided at a node looks at its children alone. So a node is kept with probability
    min(1, p_k / q_k) whatever is below it, and the path to it with the product of these: traversal, which judges whole
    paths, keeps more of most trees. Raises TypeError on laws that are not Categorical.

    ``width``: children of a node, filled breadth-first. ``distinct``: siblings are drawn without replacement, as
    recursive_rejection_distinct has them.
    """

    width: int = 2
    distinct: bool = True
    claim: ClassVar[Claim] = Claim(exact=True, reference="SpecInfer 2305.09781, algorithm 2", laws="categorical")

    def parent(self, nodes: int) -> Tensor:
        """With ``width`` 2, two nodes are siblings, the third is the first one's child, and so on."""
        return breadth_first(nodes, self.width)

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        """The drafter's law, without the ``earlier`` siblings (rows, n, rank) if these are to be distinct."""
        return RecursiveRejectionDistinct().drafts(law, earlier) if self.distinct else law

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """A path from the root and one token more. ``target`` has batch (rows, N + 1), ``draft`` any tree."""
        after, draft_law = both_categorical("top_down", target, draft)
        rows, nodes = draft.value.shape
        parent = draft.parent.tolist()
        left = [after[:, place] for place in range(nodes + 1)]  # the root's first
        log_accept = []
        for node, above in enumerate(parent):
            tried = [other for other in range(node) if parent[other] == above]
            prior = self.drafts(draft_law[:, [node]], draft.value[:, None, tried])[:, 0]
            assert isinstance(prior, Categorical)
            log_accept.append(log_ratio(draft.value[:, node], left[above + 1], prior).clamp(max=0))
            left[above + 1] = residual_law(left[above + 1], prior)
        chance = torch.stack(log_accept, 1)
        coins = tape.coin("accept", chance.exp())
        end = torch.full((rows,), -1, device=coins.device)
        for node, above in enumerate(parent):  # a node is tried where its parent is the last one kept
            end = torch.where(coins[:, node] & (end == above), node, end)
        return emit_path(draft, Categorical(torch.stack([law.probs for law in left], 1)), end, chance, tape)
