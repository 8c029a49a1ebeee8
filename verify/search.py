"""Searches for the smallest problem on which a function's law is wrong, with Hypothesis."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import find as find_example
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from verify.errors import SubjectError
from verify.foreign.interpose import Room
from verify.foreign.leaf import NotUnderstood
from verify.problems import Problem

if TYPE_CHECKING:
    from verify.spaces.discrete import ProblemLaw

SECONDS = {"quick": 2.0, "thorough": 30.0}


def _rows(count: int, vocab: int) -> st.SearchStrategy[list[list[int]]]:
    row = st.lists(st.integers(0, 4), min_size=vocab, max_size=vocab).filter(any)
    return st.lists(row, min_size=count, max_size=count)


def problems(vocab: int, length: int) -> st.SearchStrategy[Problem]:
    """Problems of one size with rows of small whole weights."""
    draft = st.tuples(*(_rows(vocab**d, vocab) for d in range(length)))
    target = st.tuples(*(_rows(vocab**d, vocab) for d in range(length + 1)))

    def build(parts: tuple[Any, Any]) -> Problem:
        return Problem(tuple(map(torch.tensor, parts[0])), tuple(map(torch.tensor, parts[1])), "found")

    return st.tuples(draft, target).map(build)


def smallest(
    fn: Callable[..., Any], known: Sequence[ProblemLaw], allowed: float, *, seed: int = 0, budget: str = "quick"
) -> ProblemLaw:
    """The simplest wrong law found: the smallest size that shows any, its weights shrunk, within a time limit.

    ``known`` are wrong laws to fall back on. A problem counts as wrong if its bias exceeds ``allowed`` a thousandfold
    or, where no known bias is that large, half of the largest known one.
    """
    from verify.spaces.discrete import law_of

    floor = min(max(1000 * allowed, 1e-3), max(case.bias for case in known) / 2)
    deadline = Room.now() + SECONDS[budget]
    most = max((case.problem.vocab, case.problem.length) for case in known)
    sizes = {(case.problem.vocab, case.problem.length) for case in known} | {(2, 1), (3, 1), (2, 2)}
    dtype = known[0].problem.dtype
    options = settings(
        max_examples=60 if budget == "quick" else 1000,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    for size in sorted(sizes, key=lambda size: (size[0] ** (size[0] * size[1]), size)):
        if size[0] > min(most[0], 8) or Room.now() > deadline:
            continue
        wrong: list[ProblemLaw] = []

        def is_wrong(problem: Problem, wrong: list[ProblemLaw] = wrong) -> bool:
            if Room.now() > deadline:
                return False
            try:
                # A room of its own each time: Hypothesis must not draw its problems inside one.
                with Room(fn, shim_float=True, deep=False) as room:
                    case = law_of(fn, problem.to(dtype), room, leaves=2_000)
            except (SubjectError, NotUnderstood):
                return False
            if case.bias > max(floor, 2 * case.slack):
                wrong.append(case)
                return True
            return False

        with contextlib.suppress(HypothesisException):
            # None: nothing of this size within the limits, or the time ran out while shrinking.
            find_example(problems(*size), is_wrong, settings=options, random=random.Random(seed))
        if wrong:
            return min(wrong, key=lambda case: (_complexity(case.problem), -case.bias))
    return min(known, key=lambda case: (case.problem.vocab, case.problem.length, -case.bias))


def _complexity(problem: Problem) -> int:
    """How much there is to read: the distinct rows, then the weights in them."""
    rows = [tuple(row) for table in (*problem.draft, *problem.target) for row in table.tolist()]
    uniform = (1.0 / problem.vocab,) * problem.vocab
    plain = sum(int(row == uniform or max(row) == 1.0) for row in rows)
    return len(set(rows)) + len(rows) - plain
