"""Decoding: one round as a pure step, and the loop that repeats it until every row is long enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distributions.law import Law
from distributions.model import Model
from distributions.tape import Tape
from verify.records import Draft, Outcome
from verify.verifier import Verifier


def parents(verifier: Verifier, nodes: int) -> Tensor:
    """The shape of draft a verifier reads: its own ``parent(nodes)`` where it has one, else a chain -1, 0, 1, ..."""
    own = getattr(verifier, "parent", None)
    return torch.arange(nodes) - 1 if own is None else own(nodes)


def depths(parent: Tensor) -> Tensor:
    """The depth (N,) of every node, 0 at the root's children. Raises ValueError where a parent follows its child."""
    depth: list[int] = []
    for node, above in enumerate(parent.tolist()):
        if not -1 <= above < node:
            raise ValueError(f"node {node} has parent {above}; a parent is -1 or an earlier node")
        depth.append(0 if above < 0 else depth[above] + 1)
    return torch.tensor(depth)


Policy = Callable[[Law, Tensor], Law]


def _as_it_is(law: Law, earlier: Tensor) -> Law:
    return law


def policy(verifier: Verifier) -> Policy:
    """What drafts are really drawn from: the verifier's own ``drafts(law, earlier)`` where it has one, else ``law``.

    ``law``: the drafter's, batch (rows, n), for n nodes; ``earlier`` (rows, n, rank, *event): the siblings that each of
    them has had so far. So a rule may draw its siblings without replacement, or its tokens greedily.
    """
    return getattr(verifier, "drafts", _as_it_is)


def ranks(parent: Tensor) -> Tensor:
    """How many earlier siblings every node (N,) has."""
    return (parent.unsqueeze(0) == parent.unsqueeze(1)).tril(-1).sum(1)


def propose(drafter: Model[Any], state: Any, parent: Tensor, tape: Tape, drafts: Policy = _as_it_is) -> Draft:
    """A draft of the given shape, drawn depth by depth, and siblings in order, from ``drafts`` of the drafter's law.

    The recorded law is the drafter's own, by one parallel evaluation on its own draft; nodes not yet drawn are zeros,
    on which no drawn node depends. Siblings that ask nothing of one another are drawn at once.
    """
    depth = depths(parent)
    value: Tensor | None = None
    for level in range(int(depth.max()) + 1):
        law = drafter.law(state) if value is None else drafter.law(state, value, parent)
        for place, nodes in _groups(parent, depth == level, drafts is not _as_it_is):
            mine = law[:, parent[nodes] + 1]
            if drafts is not _as_it_is:
                mine = drafts(mine, _earlier(value, parent, nodes, place, mine))
            drawn = mine.sample(tape, f"draft.{level}" + (f".{place}" if place else ""))
            if value is None:
                value = drawn.new_zeros((drawn.shape[0], len(parent), *drawn.shape[2:]))
            value[:, nodes] = drawn
    assert value is not None  # there is a node at depth 0
    return Draft(value, drafter.law(state, value, parent)[:, parent + 1], parent)


def _groups(parent: Tensor, here: Tensor, one_by_one: bool) -> list[tuple[int, Tensor]]:
    """The nodes of one depth in the groups that are drawn at once: all of them, or those of one rank."""
    if not one_by_one:
        return [(0, torch.nonzero(here).squeeze(1))]
    rank = ranks(parent)
    return [(place, torch.nonzero(here & (rank == place)).squeeze(1)) for place in range(int(rank[here].max()) + 1)]


def _earlier(value: Tensor | None, parent: Tensor, nodes: Tensor, rank: int, law: Law) -> Tensor:
    """The earlier siblings (rows, n, rank, *event) of nodes that all have ``rank`` of them."""
    if value is None:
        return torch.zeros((law.batch_shape[0], len(nodes), 0, *law.event_shape))
    rows = [torch.nonzero(parent[:node] == parent[node]).squeeze(1) for node in nodes.tolist()]
    return value[:, torch.stack(rows)]


@dataclass(frozen=True, eq=False)
class State:
    """Where a batch of sequences stands: both models' states, and the draft carried over and the verifier's memory, if
    there are any; and how many tokens are ``left`` (rows,) to decode, where that is known.
    """

    target: Any
    drafter: Any
    carry: Draft | None = None
    memory: Tensor | None = None
    left: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Turn:
    """What one round did: its draft, the verifier's outcome, and the emitted ``tokens`` (rows, N + 1, *token)."""

    draft: Draft
    outcome: Outcome
    tokens: Tensor


@dataclass(frozen=True)
class Round:
    """One turn of draft, verify, extend: a pure step (state, tape) -> (state, turn).

    A carried draft (Jacobi decoding) takes the drafter's place; it must have all ``draft_length`` nodes.
    """

    target: Model[Any]
    drafter: Model[Any]
    verifier: Verifier
    draft_length: int

    def start(self, rows: int, condition: Any = None) -> State:
        """The state of ``rows`` empty sequences."""
        return State(self.target.start(rows, condition), self.drafter.start(rows, condition))

    def extend(
        self, state: State, value: Tensor, length: Tensor, carry: Draft | None = None, memory: Tensor | None = None
    ) -> State:
        """Both models after the first ``length`` (rows,) of ``value``."""
        target, drafter = (
            self.target.extend(state.target, value, length),
            self.drafter.extend(state.drafter, value, length),
        )
        return State(target, drafter, carry, memory, None if state.left is None else state.left - length)

    def select(self, state: State, rows: Tensor) -> State:
        """The states of the selected rows."""
        carry = None if state.carry is None else state.carry[rows]
        memory, left = (None if part is None else part[rows] for part in (state.memory, state.left))
        models = self.target.select(state.target, rows), self.drafter.select(state.drafter, rows)
        return State(*models, carry, memory, left)

    def __call__(self, state: State, tape: Tape) -> tuple[State, Turn]:
        """Raises ValueError where the verifier emits fewer than one or more than N + 1 tokens."""
        draft = state.carry
        if draft is None:
            draft = propose(
                self.drafter, state.drafter, parents(self.verifier, self.draft_length), tape, policy(self.verifier)
            )
        if state.memory is not None or state.left is not None:
            draft = replace(draft, memory=state.memory, left=state.left)
        law = self.target.law(state.target, draft.value, draft.parent)
        outcome = self.verifier.verify(draft, law, tape)
        if bool(((outcome.length < 1) | (outcome.length > outcome.value.shape[1])).any()):
            raise ValueError(
                f"{type(self.verifier).__name__} emitted {int(outcome.length.min())} to {int(outcome.length.max())} "
                f"tokens for a draft of {draft.value.shape[1]}; a round emits 1 to N + 1"
            )
        state = self.extend(state, outcome.value, outcome.length, outcome.carry, outcome.memory)
        return state, Turn(draft, outcome, law.token(outcome.value))


@dataclass(frozen=True, eq=False)
class Trace:
    """A decoded batch.

    ``tokens`` (rows, length, *token); for each round ``lengths`` (rounds, rows), 0 where the row had finished,
    ``kept`` (rounds, rows, N) and ``log_accept`` (rounds, rows, N), NaN where the row had finished.
    """

    tokens: Tensor
    lengths: Tensor
    kept: Tensor
    log_accept: Tensor

    @property
    def rounds(self) -> Tensor:
        """How many rounds each row took (rows,)."""
        return (self.lengths > 0).sum(0)

    @property
    def work(self) -> Tensor:
        """Target evaluations per emitted token (rows,): one parallel evaluation a round."""
        return self.rounds.double() / self.tokens.shape[1]


def decode(
    target: Model[Any],
    drafter: Model[Any],
    verifier: Verifier,
    draft_length: int,
    length: int,
    tape: Tape,
    rows: int,
    condition: Any = None,
    prefill: int = 0,
) -> Trace:
    """Decode ``rows`` sequences of ``length`` tokens. Rows advance unevenly; a finished row takes no further part, and
    what its last round emitted beyond ``length`` is cut. The first ``prefill`` tokens are the target's own draws, each
    a round of one token that examines nothing. Raises ValueError for lengths below 1, or a prefill beyond ``length``.
    """
    if min(draft_length, length, rows) < 1:
        raise ValueError(f"draft_length, length and rows must be 1 or more, and are {draft_length}, {length}, {rows}")
    if not 0 <= prefill <= length:
        raise ValueError(f"prefill is {prefill}; give a number of tokens from 0 to the length, {length}")
    step = Round(target, drafter, verifier, draft_length)
    state, alive = replace(step.start(rows, condition), left=torch.full((rows,), length)), torch.arange(rows)
    filled = torch.zeros(rows, dtype=torch.long)
    tokens: Tensor | None = None
    lengths, kept, log_accept = [], [], []
    one = torch.ones(rows, dtype=torch.long)
    for before in range(prefill):
        law = target.law(state.target)
        value = law.sample(tape, f"prefill.{before}")
        state = step.extend(state, value, one)
        new = law.token(value)
        tokens = new.new_zeros((rows, length, *new.shape[2:])) if tokens is None else tokens
        tokens[:, before] = new[:, 0]
        lengths.append(one)
        kept.append(torch.zeros(rows, draft_length, dtype=torch.bool))
        log_accept.append(torch.full((rows, draft_length), float("nan"), dtype=torch.float64))
        filled += 1
    if prefill == length:
        alive = alive[:0]
    while len(alive):
        state, turn = step(state, tape[alive])
        outcome, new = turn.outcome, turn.tokens
        if tokens is None:
            tokens = new.new_zeros((rows, length, *new.shape[2:]))
        emitted = outcome.length.to(alive.device)
        column = torch.arange(new.shape[1])
        place = filled[alive].unsqueeze(1) + column
        row, put = torch.nonzero((column < emitted.unsqueeze(1)) & (place < length), as_tuple=True)
        tokens[alive[row], place[row, put]] = new[row, put]
        lengths.append(torch.zeros(rows, dtype=torch.long).index_put((alive,), emitted))
        kept.append(_spread(outcome.kept, alive, rows, False))
        log_accept.append(_spread(outcome.log_accept, alive, rows, float("nan")))
        filled[alive] += emitted
        left = torch.nonzero(filled[alive] < length).squeeze(1)
        state, alive = step.select(state, left), alive[left]
    assert tokens is not None  # rows >= 1
    return Trace(tokens, torch.stack(lengths), torch.stack(kept), torch.stack(log_accept))


def _spread(part: Tensor, alive: Tensor, rows: int, empty: float) -> Tensor:
    """``part`` of the living rows among all rows."""
    return part.new_full((rows, part.shape[1]), empty).index_put((alive.to(part.device),), part)
