"""How much drafts change while they wait: a decoding followed column by column, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distributions.model import Model
from distributions.tape import Tape
from verify.decode import Round
from verify.verifier import Verifier


@dataclass(frozen=True, eq=False)
class Course:
    """A decoded batch and its drafts' changes.

    ``tokens`` (rows, length); ``rounds`` (rows,): target evaluations, one a round; ``distance`` (rows,) for each number
    of rounds in between: the share of drafted columns whose token is another than that many rounds before.
    """

    tokens: Tensor
    rounds: Tensor
    distance: dict[int, Tensor]


def follow(
    target: Model[Any],
    drafter: Model[Any],
    verifier: Verifier,
    draft_length: int,
    length: int,
    tape: Tape,
    rows: int,
    condition: Any = None,
    apart: Sequence[int] = (1, 3),
) -> Course:
    """Decode as ``decode`` does, a verifier that carries its drafts over, and compare each draft with earlier ones.

    A column counts in a comparison if it was drafted, and not yet committed, in both rounds; rows that never have such
    a column have distance NaN. Raises ValueError where the verifier carries nothing.
    """
    step = Round(target, drafter, verifier, draft_length)
    state, alive = replace(step.start(rows, condition), left=torch.full((rows,), length)), torch.arange(rows)
    filled, rounds = torch.zeros(rows, dtype=torch.long), torch.zeros(rows, dtype=torch.long)
    tokens = torch.zeros(rows, length + draft_length + 1, dtype=torch.long)
    changed = {gap: torch.zeros(2, rows) for gap in apart}
    boards: list[Tensor] = []  # the drafts of the last rounds by absolute column, -1 where there are none
    while len(alive):
        state, turn = step(state, tape[alive])
        carry, moved = turn.outcome.carry, turn.outcome.length
        if carry is None:
            raise ValueError(f"{type(verifier).__name__} carries no draft over; follow a Jacobi verifier")
        # What is written beyond a row's new end is overwritten by its next round, or cut.
        tokens[alive] = _placed(tokens[alive], filled[alive], turn.tokens)
        filled[alive] += moved
        rounds[alive] += 1
        board = torch.full((rows, tokens.shape[1] + draft_length), -1)
        board[alive] = _placed(board[alive], filled[alive], carry.value)
        for gap in apart:
            if len(boards) >= gap:
                both = (board[:, :length] >= 0) & (boards[-gap][:, :length] >= 0)
                changed[gap] += torch.stack([(both & (board != boards[-gap])[:, :length]).sum(1), both.sum(1)])
        boards = [*boards, board][-max(apart) :]
        left = torch.nonzero(filled[alive] < length).squeeze(1)
        state, alive = step.select(state, left), alive[left]
    return Course(tokens[:, :length], rounds, {gap: part[0] / part[1] for gap, part in changed.items()})


def _placed(into: Tensor, begin: Tensor, value: Tensor) -> Tensor:
    """``into`` (rows, C) with ``value`` (rows, K) written from column ``begin`` (rows,) on."""
    return into.scatter(1, begin.unsqueeze(1) + torch.arange(value.shape[1]), value)
