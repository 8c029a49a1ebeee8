"""Every leaf of one round: the round run on all answers its draws can have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distributions.enumeration import EnumerationTape, RowsDependent, enumerate_tape
from distributions.noise import Noise
from distributions.tape import Tape
from verify.decode import Round, State, Turn
from verify.records import Draft


@dataclass(frozen=True, eq=False)
class Leaf:
    """A batch of leaves: the row each belongs to (``index``), its mass, and what happened in it."""

    index: Tensor
    mass: Tensor
    dropped: Tensor
    draft: Tensor
    tokens: Tensor
    length: Tensor
    kept: Tensor
    log_accept: Tensor
    carry: Draft | None
    memory: Tensor | None


def after(step: Round, contexts: Tensor, condition: Tensor | None = None) -> State:
    """The state after each row of ``contexts`` (rows, L)."""
    rows, length = contexts.shape
    state = step.start(rows, condition)
    return step.extend(state, contexts, torch.full((rows,), length)) if length else state


def check_tokens(leaf: Leaf, vocab: int, deep: int) -> None:
    """Raises ValueError for more tokens than ``deep``, or tokens outside the vocabulary."""
    counted = torch.arange(leaf.tokens.shape[1]) < leaf.length.unsqueeze(-1)
    tokens = leaf.tokens[counted]
    if int(leaf.length.max()) > deep or bool(((tokens < 0) | (tokens >= vocab)).any()):
        raise ValueError(
            f"a round emitted up to {int(leaf.length.max())} tokens in {int(tokens.min())}..{int(tokens.max())}; "
            f"at most {deep} tokens in 0..{vocab - 1} are possible"
        )


def apart(step: Round, state: State, rows: int, min_mass: float, max_leaves: int) -> list[Leaf]:
    """Every leaf of every row, all of them in one batch: quick, and right where rows are independent.

    Raises RowsDependent where they are not.
    """

    def run(index: Tensor, tape: EnumerationTape) -> Turn:
        return step(step.select(state, index), tape)[1]

    found = [_leaf(*batch) for batch in enumerate_tape(run, rows, min_mass=min_mass, max_leaves=max_leaves)]
    total = torch.zeros(rows, dtype=torch.float64)
    for leaf in found:
        total.index_add_(0, leaf.index, leaf.mass + leaf.dropped)
    if bool(((total - 1).abs() > 1e-9).any()):
        raise RowsDependent(
            f"the leaves of one row have mass {float(total.min())} to {float(total.max())} and not 1: the draws of a "
            "row depend on the other rows of its batch; enumerate the batch together"
        )
    return found


def together(step: Round, state: State, rows: int, min_mass: float, max_leaves: int) -> list[Leaf]:
    """Every leaf of one batch of ``rows``, which may depend on one another: as many runs as combinations of answers."""

    def run(index: Tensor, tape: EnumerationTape) -> list[Turn]:
        return [step(state, _Batch(tape, torch.full((1,), leaf)))[1] for leaf in range(len(index))]

    members = torch.arange(rows)
    return [
        _leaf(members, mass.expand(rows), dropped.expand(rows), turn)
        for _, masses, drops, turns in enumerate_tape(run, 1, min_mass=min_mass, max_leaves=max_leaves)
        for mass, dropped, turn in zip(masses, drops, turns, strict=True)
    ]


Leaves = Callable[[Round, State, int, float, int], list[Leaf]]


def _leaf(index: Tensor, mass: Tensor, dropped: Tensor, turn: Turn) -> Leaf:
    made = turn.outcome
    draft, record = turn.draft.value, (made.length, made.kept, made.log_accept, made.carry, made.memory)
    return Leaf(index, mass, dropped, draft, turn.tokens, *record)


@dataclass(frozen=True, eq=False)
class _Batch:
    """One leaf of an enumeration as the tape of a whole batch: each row's draws are columns of the leaf's one row."""

    whole: EnumerationTape
    leaf: Tensor

    def uniform(self, site: str, shape: object) -> Tensor:
        return self.whole.uniform(site, ())

    normal = race = uniform

    def noise(self, site: str, shape: Sequence[int]) -> Noise:
        return self.whole.noise(site, shape)

    def coin(self, site: str, prob: Tensor) -> Tensor:
        return self.whole[self.leaf].coin(site, prob.reshape(1, prob.numel())).reshape(prob.shape)

    def categorical(self, site: str, probs: Tensor) -> Tensor:
        columns = probs.reshape(1, probs[..., 0].numel(), probs.shape[-1])
        return self.whole[self.leaf].categorical(site, columns).reshape(probs.shape[:-1])

    def __getitem__(self, rows: Tensor) -> Tape:
        return self
