"""Searches for the smallest problem on which a function's law is wrong, with Hypothesis."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import find as find_example
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from verify.errors import SubjectError
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
    deadline = time.monotonic() + SECONDS[budget]
    sizes = sorted({(case.problem.vocab, case.problem.length) for case in known} | {(2, 1), (3, 1), (2, 2)})
    vocab, length = max(sizes, key=lambda size: size[0] ** size[1])
    dtype = known[0].problem.dtype
    for size in sorted(sizes, key=lambda size: (size[0] ** (size[0] * size[1]), size)):
        if size[0] > vocab or size[1] > length:
            continue
        best: list[ProblemLaw] = []

        def wrong(problem: Problem, best: list[ProblemLaw] = best) -> bool:
            if time.monotonic() > deadline:
                return False
            try:
                case = law_of(fn, problem.to(dtype), leaves=2_000)
            except (SubjectError, NotUnderstood):
                return False
            if case.bias > max(floor, 2 * case.slack):
                best.append(case)
                return True
            return False

        options = settings(
            max_examples=60 if budget == "quick" else 1000,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        try:
            find_example(problems(*size), wrong, settings=options, random=random.Random(seed))
        except HypothesisException:
            pass  # nothing of this size within the limits, or the time ran out while shrinking
        if best:
            return min(best, key=lambda case: (_complexity(case.problem), -case.bias))
        if time.monotonic() > deadline:
            break
    return min(known, key=lambda case: (case.problem.vocab, case.problem.length, -case.bias))


def _complexity(problem: Problem) -> int:
    """How much there is to read: the distinct rows, then the weights in them."""
    rows = [tuple(row) for table in (*problem.draft, *problem.target) for row in table.tolist()]
    uniform = (1.0 / problem.vocab,) * problem.vocab
    plain = sum(int(row == uniform or max(row) == 1.0) for row in rows)
    return len(set(rows)) + len(rows) - plain
