"""The exact law of a function on one problem: of what it emits on every drafted block."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verify.errors import SubjectError, article, raised
from verify.foreign.attempt import attempt
from verify.foreign.interpose import Room
from verify.foreign.runs import exact_runs
from verify.foreign.symbols import Symbol
from verify.problems import Problem

RARE = 1e-2  # a function that raises more often than this has no law to speak of
EXACT = 1e-12  # the largest bias that float64 rounding explains
SINGLE = 2e-6  # and float32, when the function computes in it

Tokens = tuple[int, ...]


def tolerance(precisions: set[torch.dtype]) -> float:
    """The bias that the rounding of the widest type used throughout would explain."""
    return SINGLE if torch.float32 in precisions else EXACT


def tokens_of(result: Any, vocab: int, most: int, least: int = 1) -> Tokens:
    """The emitted ids in whatever the function returned: ``least`` to ``most`` of them, a block unless given.

    Raises SubjectError unless these are so many ids < vocab.
    """
    wanted = f"length = {most} of them" if least == most else f"1 to draft_length + 1 = {most} of them"
    if result is None:
        raise SubjectError(f"the function returned None; return the emitted token ids, {wanted}")
    if isinstance(result, Tensor):
        result = result.tolist()
    elif isinstance(result, np.ndarray):
        result = result.tolist()
    if isinstance(result, (int, np.integer)) and not isinstance(result, bool):
        result = [result]
    try:
        items = [item.tolist() if isinstance(item, (Tensor, np.ndarray)) else item for item in result]
    except TypeError:
        if inspect.iscoroutine(result):
            result.close()
            raise SubjectError("the function is async and returned a coroutine; give one that returns ids") from None
        raise SubjectError(f"the function returned {article(result)}; return a sequence of token ids") from None
    flat: list[Any] = []
    for item in items:
        flat += item if isinstance(item, (list, tuple)) else [item]
    for item in flat:
        if isinstance(item, Symbol):
            raise SubjectError("the function returned a random number in place of a token id; return ids")
        if isinstance(item, float) and item.is_integer():
            continue  # np.append([], id) is an array of floats
        if isinstance(item, bool) or not isinstance(item, (int, np.integer)):
            raise SubjectError(f"the function returned {item!r} in place of a token id; return whole numbers")
    for item in flat:
        if not 0 <= item < vocab:
            raise SubjectError(f"the function returned id {item}, outside 0..{vocab - 1}; return ids of the vocabulary")
    if not least <= len(flat) <= most:
        raise SubjectError(f"the function returned {len(flat)} tokens; return {wanted}")
    return tuple(int(item) for item in flat)


@dataclass(frozen=True, eq=False)
class ProblemLaw:
    """The exact law of a function on one problem.

    ``joint``: the probability of every drafted block together with what was emitted for it. ``slack``: mass not
    enumerated, branches that exist by rounding and quadrature errors; the bias is exact to it. ``leaves``: runs.
    ``raised``: the largest share of a block's runs that raised, and what they raised.
    """

    problem: Problem
    joint: Mapping[tuple[Tokens, Tokens], float]
    slack: float = 0.0
    leaves: int = 0
    raised: tuple[float, SubjectError] | None = None

    @cached_property
    def emitted(self) -> Mapping[Tokens, float]:
        """The law of the emitted blocks."""
        found: dict[Tokens, float] = {}
        for (_, tokens), mass in self.joint.items():
            found[tokens] = found.get(tokens, 0.0) + mass
        return found

    @cached_property
    def by_block(self) -> Mapping[Tokens, Mapping[Tokens, float]]:
        """The probabilities of what is emitted with each drafted block."""
        found: dict[Tokens, dict[Tokens, float]] = {}
        for (block, tokens), mass in self.joint.items():
            found.setdefault(block, {})[tokens] = mass
        return found

    @cached_property
    def law(self) -> Tensor:
        """The law (V**(gamma+1),) of gamma + 1 tokens, those not emitted being drawn from the target (lemma L5)."""
        return self.problem.complete(self.emitted)

    @property
    def agreement(self) -> float:
        """The probability that the first emitted token is the drafted one."""
        return sum(mass for (block, tokens), mass in self.joint.items() if tokens[0] == block[0])

    @property
    def bias(self) -> float:
        """Total variation from the target's law of gamma + 1 tokens."""
        return float((self.law - self.problem.truth).abs().sum() / 2)

    def conditionals(self) -> list[tuple[Tokens, float, Tensor, Tensor]]:
        """(prefix, probability of reaching it, law of the next emitted token, the target's) by lemma L5."""
        vocab, found = self.problem.vocab, []
        prefixes = sorted(
            {tokens[:i] for tokens in self.emitted for i in range(len(tokens))}, key=lambda t: (len(t), t)
        )
        for prefix in prefixes:
            here = torch.zeros(vocab, dtype=torch.float64)
            for tokens, mass in self.emitted.items():
                if len(tokens) > len(prefix) and tokens[: len(prefix)] == prefix:
                    here[tokens[len(prefix)]] += mass
            reach = float(here.sum())
            if reach > 0:
                wanted = self.problem.target[len(prefix)][self.problem.index(prefix)]
                found.append((prefix, reach, here / reach, wanted))
        return found

    def departure(self) -> tuple[Tokens, Tensor, Tensor] | None:
        """The first position where the law departs, at its worst context: (prefix, found, wanted)."""
        worst: tuple[float, Tokens, Tensor, Tensor] | None = None
        for prefix, reach, found, wanted in self.conditionals():
            size = reach * float((found - wanted).abs().sum() / 2)
            if worst is not None and len(prefix) > len(worst[1]):
                break
            if size > max(self.slack, 1e-9 * reach) and (worst is None or size > worst[0]):
                worst = (size, prefix, found, wanted)
        return None if worst is None else worst[1:]


def law_of(
    fn: Callable[..., Any],
    problem: Problem,
    room: Room | None = None,
    *,
    deadline: float = float("inf"),
    leaves: int = 50_000,
) -> ProblemLaw:
    """The exact law of ``fn`` on a problem, over every drafted block.

    Raises SubjectError if the function raises, or returns what is no block of tokens, with more than negligible
    probability; NotUnderstood if its draws cannot be enumerated.
    """
    if room is None:
        return attempt(fn, lambda opened: law_of(fn, problem, opened, deadline=deadline, leaves=leaves))[0]
    joint: dict[tuple[Tokens, Tokens], float] = {}
    slack, count = 0.0, 0
    failed: tuple[float, SubjectError] | None = None
    for block, chance in problem.drafts():
        call = problem.call(fn, block)
        runs = exact_runs(
            lambda call=call: tokens_of(call(), problem.vocab, problem.length + 1),  # type: ignore[misc]
            room,
            deadline=deadline,
            max_leaves=leaves,
            rerun=1 if problem.vocab**problem.length <= 9 else 8,  # every leaf twice where that is cheap
        )
        crashed = sum(share for share, _ in runs.raised)
        if crashed > tolerance(room.precisions):
            error = max(runs.raised, key=lambda item: item[0])[1]
            sentence = raised(error, f"problem {problem.name!r} (vocab {problem.vocab}, draft {list(block)})")
            if crashed > RARE:
                raise sentence from error
            failed = max(failed or (0.0, sentence), (crashed, sentence), key=lambda item: item[0])
        slack += chance * (runs.dropped + runs.error + crashed)
        count += runs.leaves
        for tokens, mass in runs.law.items():
            joint[block, tokens] = chance * mass
    return ProblemLaw(problem, joint, slack, count, failed)
