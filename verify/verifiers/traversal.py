"""Traversal verification: a tree of drafts is tried from its leaves to its root, whole paths at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import excess, log_ratio, residual_law
from verify.tree import breadth_first, children, emit_path
from verify.verifiers.block import both_categorical, log_any, stop_chance, times
from verify.verifiers.recursive_rejection_distinct import RecursiveRejectionDistinct


@dataclass(frozen=True)
class Traversal:
    """Visit every node after all that hangs on it, siblings in drawing order; stop at the first whose coin succeeds,
    emit the path to it and one token of the law it has by then (2505.12398, algorithm 1; lemma A4).

    A node has a weight w and a law p, at first the target's after it; the root's weight is 1. Its child x ~ q enters
    with weight min(1, w p(x) / q(x)) and is visited. If nothing there was kept, the node goes on with p <- (w p - q)+,
    normalised, w <- S / (S + 1 - w), S the mass of (w p - q)+, and q <- the law of its next child given the ones that
    failed. With no child left its coin w is tossed. The root's weight stays 1, so that something is always emitted.

    Why it is exact. Claim: something at or below a node of weight w is kept with probability w, and the next token
    after it then has law p. It holds without children. With a child, min(q, w p) is kept through it, and it fails
    with probability 1 - w + S; what is missing of w p is (w p - q)+, of mass S: given the failure, just the new w
    times the new p, and the claim with one child less. The next child may have any law given the failed ones, as long
    as q is that law: q itself for independent siblings, q without the tried tokens for siblings drawn without
    replacement. On a chain it is block verification. Raises TypeError on laws that are not Categorical.

    Of one round it emits no fewer tokens on average than ``top_down`` where, below the root, nothing hangs deeper from
    a sibling than from one tried before it, as in every breadth-first tree (seen on all trees of up to five nodes, by
    enumeration). Elsewhere it may: an early leaf is kept for what its path is worth, and leaves less to a deeper one.

    ``width``: children of a node, filled breadth-first (1: a chain). ``distinct``: siblings are drawn without
    replacement, as recursive_rejection_distinct has them.
    """

    width: int = 2
    distinct: bool = True
    claim: ClassVar[Claim] = Claim(exact=True, reference="2505.12398, algorithm 1", laws="categorical")

    def parent(self, nodes: int) -> Tensor:
        """With ``width`` 2, two nodes are siblings, the third is the first one's child, and so on."""
        return breadth_first(nodes, self.width)

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        """The drafter's law, without the ``earlier`` siblings (rows, n, rank) if these are to be distinct."""
        return RecursiveRejectionDistinct().drafts(law, earlier) if self.distinct else law

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """A path from the root and one token more. ``target`` has batch (rows, N + 1), ``draft`` any tree."""
        after, draft_law = both_categorical("traversal", target, draft)
        rows, nodes = draft.value.shape
        parent = draft.parent.tolist()
        law = [after[:, place] for place in range(nodes + 1)]  # by node, the root last: law[-1]
        law.append(law.pop(0))
        weight = [after.probs.new_zeros(rows) for _ in law]  # in logarithms
        order: list[int] = []  # every node after its children
        first = [0] * (nodes + 1)  # where in it the nodes below and including this one begin

        def visit(node: int) -> None:
            first[node] = len(order)
            tried: list[int] = []
            for child in children(parent, node):
                prior = self.drafts(draft_law[:, [child]], draft.value[:, None, tried])[:, 0]
                assert isinstance(prior, Categorical)
                ratio = log_ratio(draft.value[:, child], law[node], prior)
                weight[child] = times(weight[node], ratio).clamp(max=0)
                visit(child)
                missing = excess(law[node], prior, weight[node]).sum(-1)
                law[node] = residual_law(law[node], prior, weight[node])
                weight[node] = stop_chance(weight[node], missing).log()
                tried.append(child)
            order.append(node)

        visit(-1)
        chance = torch.stack([weight[node].exp() for node in order], 1)
        stop = tape.coin("accept", chance).long().argmax(1)  # the first that succeeds; the root's always does
        left = Categorical(torch.stack([law[node].probs for node in range(-1, nodes)], 1))
        log_accept = _log_accept(parent, order, first, chance)
        return emit_path(draft, left, torch.tensor(order, device=stop.device)[stop], log_accept, tape)


def _log_accept(parent: list[int], order: list[int], first: list[int], chance: Tensor) -> Tensor:
    """That a coin of the node or below it succeeds, given that one does up to its parent and none of the earlier
    siblings': (rows, N).
    """
    found = []
    for node, above in enumerate(parent):
        some = log_any(chance[:, first[node] : order.index(node) + 1])
        seen = log_any(chance[:, first[node] : order.index(above) + 1])
        found.append(torch.where(torch.isneginf(some), some, (some - seen).clamp(max=0)))
    return torch.stack(found, 1)
