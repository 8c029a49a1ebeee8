"""What it costs to enumerate somebody else's code.

Each leaf is one run of the unedited function with its draws answered, and a second run to see that nothing else
decided. The reference is the same function on the same drafts, run as often on its own generators; the overhead is the
time of an answered run over that of a plain one, the bookkeeping of the enumeration included. Their paths are not quite
the same: leaves take every branch once, chance the probable ones more often. Opening the room, in which every generator
in the process is watched, is paid once or twice for a verdict, and counted apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.benchmarks.in_room import in_room
from tests.benchmarks.report import Section, Versus
from tests.verifiers_under_test import numpy_generator, numpy_legacy, stdlib_loop, torch_item, torch_vectorised_race
from verify.foreign.interpose import Room
from verify.foreign.plain import seeded
from verify.foreign.runs import Runs, exact_runs
from verify.problems import pool
from verify.spaces.discrete import tokens_of

PASSES = 4
PROBLEM = pool(3, 2)[0]
STYLES: dict[str, Callable[..., Any]] = {
    "torch, a loop with .item()": torch_item,
    "torch, vectorised, exponential race": torch_vectorised_race,
    "numpy, Generator": numpy_generator,
    "numpy, legacy": numpy_legacy,
    "standard library": stdlib_loop,
}


@pytest.mark.parametrize("style", STYLES)
def test_answered_runs(style: str, versus: Versus, section: Section) -> None:
    fn = STYLES[style]
    blocks = [(mass, PROBLEM.call(fn, block)) for block, mass in PROBLEM.drafts()]

    def enumerate_all(room: Room) -> list[Runs]:
        return [exact_runs(lambda call=call: tokens_of(call(), 3, 3), room) for _, call in blocks]  # type: ignore[misc]

    leaves = [runs.leaves for runs in in_room(fn, enumerate_all, 1).result]

    def plain() -> None:
        with seeded(0):
            for (_, call), count in zip(blocks, leaves, strict=True):
                for _ in range(2 * count * PASSES):
                    call()

    run = versus(lambda: in_room(fn, enumerate_all, PASSES), plain, turns=5)
    answered = run.result
    law: dict[tuple[int, ...], float] = {}
    for (mass, _), runs in zip(blocks, answered.result, strict=True):
        for tokens, share in runs.law.items():
            law[tokens] = law.get(tokens, 0.0) + mass * share
    assert float((PROBLEM.complete(law) - PROBLEM.truth).abs().sum() / 2) < 1e-12
    section.row(
        style=style,
        leaves=sum(leaves),
        overhead=run.ratio * (1 - answered.share),
        opening_over_a_leaf=answered.share / (1 - answered.share) * PASSES * sum(leaves),
        leaves_per_second=PASSES * sum(leaves) / (run.seconds * (1 - answered.share)),
        plain_runs_per_second=PASSES * 2 * sum(leaves) / run.reference_seconds,
        opening_seconds=answered.opening,
    )
