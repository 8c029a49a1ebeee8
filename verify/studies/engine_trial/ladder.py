"""One run after another through the checks of a level of evidence, with more and more rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from distributions.tape import GeneratorTape
from verify.checks import Check, Tally
from verify.engine import own_tape
from verify.engine.escalation import PILOT_DRAWS
from verify.statistics.learned import Learner

Draw = Callable[[int, int], tuple[Any, Any]]
"""Rows and a seed: a sample of so many rows, and its truth."""
STEPS = 64
"""Seeds kept for each run; the last is its pilot's."""
ALL = "all together"
ENOUGH = 1e-3
"""A run whose checks together reject at this part of the level is not continued: with more rows they would again."""


@dataclass(frozen=True)
class Shards:
    """A draw as a source of the engine: shard k has the seed ``first`` + k."""

    draw: Draw
    rows: int
    first: int

    def __call__(self, shard: int) -> tuple[Any, Any]:
        return self.draw(self.rows, self.first + shard)


def fitted(checks: Sequence[Check | Learner], draw: Draw, run: int, pilot: int) -> list[Check]:
    """The checks, those that learn after a pilot of so many rows, which no run counts."""
    seed = (run + 1) * STEPS - 1
    learners = any(isinstance(item, Learner) for item in checks)
    seen = draw(pilot, seed) if learners else None
    tape = GeneratorTape(PILOT_DRAWS + seed)
    return [item.fit(*seen, tape) if seen and isinstance(item, Learner) else item for item in checks]  # type: ignore[misc]


def climb(
    draw: Draw, checks: Sequence[Check], sizes: Sequence[int], run: int, alpha: float, stop: bool = False
) -> dict[str, list[float]]:
    """The p-value of every check at every size of one run, its rows growing as they would in the engine: tallies add.

    ``ALL`` is the smallest p-value times their number, so that Holm's procedure rejects something where it is at most
    the level. A check that has nothing to test counts as 1. ``stop``: see ``ENOUGH``; the p-values stay what they were.
    """
    torch.set_num_threads(1)
    total: dict[Any, Tally] = {}
    found: dict[str, list[float]] = {}
    before = 0
    for step, size in enumerate(sizes):
        seed = run * STEPS + step
        sample, truth = draw(size - before, seed)
        tape, before = own_tape(seed), size
        for statistic in dict.fromkeys(check.statistic for check in checks):
            tally = statistic(sample, truth, tape)
            total[statistic] = total[statistic] + tally if step else tally
        for name, value in _judged(checks, total, alpha).items():
            found.setdefault(name, []).append(value)
        if stop and found[ALL][-1] <= ENOUGH * alpha:
            break
    return {name: values + values[-1:] * (len(sizes) - len(values)) for name, values in found.items()}


def _judged(checks: Sequence[Check], total: Mapping[Any, Tally], alpha: float) -> dict[str, float]:
    found: dict[str, float] = {}
    tested = 0
    for check in checks:
        finding = check.judge(total[check.statistic], alpha)
        found[name_of(check, finding.check)] = 1.0 if finding.p_value is None else finding.p_value
        tested += finding.p_value is not None
    return {**found, ALL: min(1.0, tested * min(found.values()))}


def name_of(check: Check, finding: str) -> str:
    """What a check is called in tables: as its finding, with its cells where there are checks of several."""
    cells = getattr(check, "cells", None)
    name = finding.replace("_", " ")
    return f"{name}, {cells}" if isinstance(cells, int) and str(cells) not in name and "chi" in name else name


def shares(runs: Sequence[Mapping[str, Sequence[float]]], alpha: float) -> dict[str, list[float]]:
    """The share of runs in which each check rejects at level ``alpha``, size by size."""
    return {
        name: [sum(run[name][place] <= alpha for run in runs) / len(runs) for place in range(len(runs[0][name]))]
        for name in runs[0]
    }


def needed(sizes: Sequence[int], power: Sequence[float], wanted: float = 0.9) -> int | None:
    """The smallest size from which on the power is at least ``wanted``; None where the largest has less."""
    least = None
    for size, share in zip(reversed(sizes), reversed(power), strict=True):
        if share < wanted:
            break
        least = size
    return least
