"""Drafts as trees over paths: who is whose ancestor, and which token each path ends in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distributions.mar.backbone import NOBODY


def ancestry(nodes: int, parent: Tensor | None) -> tuple[Tensor, Tensor]:
    """``above`` (N + 1, N + 1), True where column is row itself or its ancestor, and the depth (N + 1,) of each.

    Number 0 is the root, n + 1 node n of ``parent`` (N,), as in ``Model.law``; None is a chain. Raises ValueError where
    a node does not come after its parent.
    """
    parents = list(range(-1, nodes - 1)) if parent is None else [int(node) for node in parent.tolist()]
    if len(parents) != nodes or any(not -1 <= up < node for node, up in enumerate(parents)):
        raise ValueError(f"parent must name an earlier node, or -1, for each of {nodes} nodes; got {parents}")
    above = torch.eye(nodes + 1, dtype=torch.bool)
    for node, up in enumerate(parents):
        above[node + 1] |= above[up + 1]
    return above, above.sum(1) - 1


def tokens_of(value: Tensor) -> Tensor:
    """The tokens (rows, N, d) of paths (rows, N, T + 1, d), their last points, or of tokens: themselves."""
    return value[..., -1, :] if value.dim() == 4 else value


def labels(rows: int, condition: Any, classes: int, device: torch.device) -> Tensor:
    """The label (rows,) of every row: a class (rows,), one for all, or NOBODY for None.

    Raises ValueError for a class that there is not.
    """
    label = torch.as_tensor(NOBODY if condition is None else condition, device=device).long().expand(rows)
    if not bool(((label >= NOBODY) & (label < classes)).all()):
        raise ValueError(f"a condition is a class 0 to {classes - 1}, or None; got {condition}")
    return label
