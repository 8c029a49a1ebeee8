"""Drafts that are guesses at one and the same token, and the outcome of a round that keeps one of them or none."""

from __future__ import annotations

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Draft, Outcome


def siblings(nodes: int) -> Tensor:
    """The shape of a draft whose ``nodes`` are all guesses at the next token: every parent is the root."""
    return torch.full((nodes,), -1)


def laws_of_siblings(name: str, draft: Draft, target: Law) -> tuple[Categorical, Categorical]:
    """The target's law (rows, N + 1) and the drafter's (rows, N), where a rule for siblings can read them.

    Raises TypeError on laws that are not Categorical and ValueError for a draft that is not all siblings.
    """
    if not isinstance(target, Categorical) or not isinstance(draft.law, Categorical):
        kinds = {type(law).__name__ for law in (target, draft.law)} - {"Categorical"}
        raise TypeError(f"{name} needs Categorical laws and got {', '.join(sorted(kinds))}; use rejection")
    if not bool((draft.parent == -1).all()):
        raise ValueError(f"{name} reads siblings; draft with parent -1 everywhere")
    return target, draft.law


def keep_first(draft: Draft, target: Law, accept: Tensor, log_accept: Tensor, rest: Law, tape: Tape) -> Outcome:
    """Keep the first sibling whose coin succeeded and a bonus after it; where none did, draw one token of ``rest``.

    ``accept`` (rows, N) are the coins of all siblings in drawing order; those after the first head are ignored.
    ``rest`` (rows): the law of the token given that every sibling was refused. The bonus is the target's, after the
    kept sibling. Both are drawn for the rows that need them only.
    """
    rows, nodes = accept.shape
    kept = accept & (accept.long().cumsum(1) == 1)
    some, none = (torch.nonzero(which).squeeze(1) for which in (kept.any(1), ~kept.any(1)))
    value = torch.cat([draft.value, draft.value[:, -1:]], 1)
    if len(some):
        node = kept[some].long().argmax(1)
        value[some, 0] = draft.value[some, node]
        value[some, 1] = target[some, node + 1].sample(tape[some], "bonus")
    if len(none):
        value[none, 0] = rest[none].sample(tape[none], "residual")
    return Outcome(value, kept.any(1).long() + 1, kept, log_accept)
