"""What is common to the rules that read a tree of drafts."""

from __future__ import annotations

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.records import Draft, Outcome


def breadth_first(nodes: int, width: int) -> Tensor:
    """Parents (nodes,) of a tree in which every node has ``width`` children, filled level by level; 1 is a chain.

    Raises ValueError for a width below 1.
    """
    if width < 1:
        raise ValueError(f"a node has 1 or more children, and width is {width}")
    return torch.arange(nodes) // width - 1


def children(parent: list[int], node: int) -> list[int]:
    """The children of a node, in drawing order; -1 is the root."""
    return [child for child, above in enumerate(parent) if above == node]


def emit_path(draft: Draft, after: Categorical, end: Tensor, log_accept: Tensor, tape: Tape) -> Outcome:
    """The outcome of a tree: the path to node ``end`` (rows,), -1 for the root, and a token of the law ``after`` it.

    ``after`` has batch (rows, N + 1), the root first.
    """
    rows, nodes = draft.value.shape
    on = torch.zeros(nodes + 1, nodes, dtype=torch.bool)
    for node, above in enumerate(draft.parent.tolist()):
        on[node + 1] = on[above + 1]
        on[node + 1, node] = True
    path = (~on).long().argsort(dim=1, stable=True)  # a parent has a smaller number than its child
    row, place = torch.arange(rows, device=end.device), end + 1
    kept = on.to(end.device)[place]
    length = kept.sum(1) + 1
    value = torch.cat([draft.value.gather(1, path.to(end.device)[place]), draft.value[:, :1]], 1)
    value[row, length - 1] = after[row, place].sample(tape, "last")
    return Outcome(value, length, kept, log_accept)
