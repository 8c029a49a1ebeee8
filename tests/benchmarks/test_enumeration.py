"""What it costs to enumerate somebody else's code.

Each leaf is one run of the unedited function with its draws answered, and by default is run a second time to see that
nothing else decided. The reference is the same function on the same drafts, run as often on its own generators; the
overhead is the time of an answered run over that of a plain one, the bookkeeping of the enumeration included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.benchmarks.conftest import Section, Versus
from tests.verifiers_under_test import numpy_generator, numpy_legacy, stdlib_loop, torch_item, torch_vectorised_race
from verify.foreign.interpose import Room
from verify.foreign.plain import seeded
from verify.foreign.runs import Runs, exact_runs
from verify.problems import pool

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
        return [exact_runs(lambda call=call: tuple(int(token) for token in call()), room) for _, call in blocks]

    with Room(fn) as room:
        leaves = [runs.leaves for runs in enumerate_all(room)]

    def plain() -> None:
        with seeded(0):
            for (_, call), count in zip(blocks, leaves, strict=True):
                for _ in range(2 * count):
                    call()

    def answered() -> list[Runs]:
        with Room(fn) as room:
            found = enumerate_all(room)
        assert not room.escapes
        return found

    run = versus(answered, plain, turns=7)
    law: dict[tuple[int, ...], float] = {}
    for (mass, _), runs in zip(blocks, run.result, strict=True):
        for tokens, share in runs.law.items():
            law[tokens] = law.get(tokens, 0.0) + mass * share
    assert float((PROBLEM.complete(law) - PROBLEM.truth).abs().sum() / 2) < 1e-12
    section.row(
        style=style,
        leaves=sum(leaves),
        overhead=run.ratio,
        leaves_per_second=sum(leaves) / run.seconds,
        plain_runs_per_second=2 * sum(leaves) / run.reference_seconds,
    )
