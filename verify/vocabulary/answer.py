"""What an unmodified function does with one drafted token, over a whole vocabulary and in O(V)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from verify.errors import raised
from verify.foreign.interpose import Room
from verify.foreign.leaf import Decision, Leaf, NotUnderstood
from verify.foreign.runs import Escaped, time_limit
from verify.foreign.wide import Wide, weights_of
from verify.spaces.discrete import tokens_of

LEAVES = 64  # ways that the coins of one call may fall
RUNS = 3


@dataclass(frozen=True, eq=False)
class Answer:
    """The law of the first token emitted for one drafted token.

    ``fixed``: the probability of each token that is emitted without a draw over the vocabulary, the accepted one among
    them; ``drawn``: the probability of every other way that the coins fall, and the weights (V,) drawn from then.
    ``bonus``: the weights (V,) of the token after an accepted one; None if no draft was accepted, or nothing followed.
    """

    fixed: dict[int, float]
    drawn: list[tuple[float, Tensor]]
    bonus: Tensor | None

    def law(self, vocab: int) -> Tensor:
        """The law (V,) itself."""
        law = torch.zeros(vocab, dtype=torch.float64)
        for emitted, mass in self.fixed.items():
            law[emitted] += mass
        for mass, weights in self.drawn:
            law.add_(weights, alpha=mass / float(weights.sum()))
        return law


@dataclass(frozen=True, eq=False)
class _Run:
    """One call: how its coins fell, the draws over the vocabulary and how they were answered, and what it returned."""

    decisions: list[Decision]
    wide: Wide
    tokens: tuple[int, ...]


def ask(fn: Callable[..., Any], token: int, rows: tuple[Tensor, Tensor], room: Room) -> Answer:
    """The function on one drafted token and the tables ``rows`` (1, V), (2, V), for every way that its coins fall.

    Every way is run three times with other answers to the draws over the vocabulary, and must branch alike. Raises
    NotUnderstood where it does not, or where such a draw is not what is emitted; SubjectError where the call fails.
    """
    fixed: dict[int, float] = {}
    drawn: list[tuple[float, Tensor]] = []
    bonus: Tensor | None = None
    pending: list[tuple[int, ...]] = [()]
    leaves = 0
    while pending:
        prescribed = pending.pop()
        leaves += 1
        if leaves > LEAVES:
            raise NotUnderstood(f"the coins of one call may fall in more than {LEAVES} ways; bound its loop")
        runs = [_run(fn, token, rows, room, prescribed, run) for run in range(RUNS)]
        decisions, emitted = runs[0].decisions, runs[0].tokens
        facts = [(run.decisions, len(run.wide.contests), len(run.tokens)) for run in runs]
        if facts.count(facts[0]) < RUNS:
            raise Escaped("a coin depends on a token drawn over the vocabulary, or on a state that is kept")
        mass = 1.0
        for depth, item in enumerate(decisions):
            if depth >= len(prescribed):
                before = tuple(earlier.taken for earlier in decisions[:depth])
                others = (i for i, share in enumerate(item.probs) if i != item.taken and share > 0)
                pending += [(*before, branch) for branch in others]
            mass *= item.probs[item.taken]
        laws = [_weights(runs, place) for place in range(len(emitted))]
        if laws[0] is None:
            fixed[emitted[0]] = fixed.get(emitted[0], 0.0) + mass
        else:
            drawn.append((mass, laws[0]))
        if len(emitted) == 2 and emitted[0] == token and bonus is None:
            certain = torch.nn.functional.one_hot(torch.tensor(emitted[1]), rows[0].shape[-1]).double()
            bonus = certain if laws[1] is None else laws[1]
    return Answer(fixed, drawn, bonus)


def _run(
    fn: Callable[..., Any], token: int, rows: tuple[Tensor, Tensor], room: Room, prescribed: tuple[int, ...], run: int
) -> _Run:
    vocab = rows[0].shape[-1]
    leaf = Leaf(prescribed, 0.0)
    wide = Wide(leaf, vocab, token, run)

    def call() -> tuple[int, ...]:
        with wide:
            return tokens_of(fn(torch.tensor([token]), rows[0].clone(), rows[1].clone()), vocab, 2)

    try:
        with time_limit():
            result = room.run(call, leaf)
    except Exception as error:
        if leaf.failure is not None:
            raise leaf.failure from error
        raise raised(error, f"draft [{token}] at vocabulary {vocab}") from error
    if any(len(item.probs) > 2 for item in leaf.decisions):
        raise NotUnderstood("a draw over many values that neither torch.multinomial nor an exponential race makes")
    return _Run(leaf.decisions, wide, result)


def _weights(runs: list[_Run], place: int) -> Tensor | None:
    """The weights of the draw that the token at a place of the result came from; None where no draw decides it."""
    emitted = [run.tokens[place] for run in runs]
    for at in range(len(runs[0].wide.contests)):
        if emitted == [run.wide.answers[at] for run in runs]:
            return weights_of([run.wide.contests[at] for run in runs])
    if len(set(emitted)) > 1:
        raise NotUnderstood("the emitted token is a function of a token drawn over the vocabulary, and not that token")
    return None
