"""How often each check, and each suite of checks, rejects what is exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint

from verify.checks import Check
from verify.checks.betting import Betting
from verify.engine.escalation import FALSE_ALARM, Suspect, escalate
from verify.references import references
from verify.statistics.learned import Learner
from verify.studies.engine_trial.batteries import (
    Against,
    Decoded,
    Emitted,
    Rounds,
    Turns,
    all_samples,
    gaussians,
    on_the_line,
    sequence_checks,
    trace_checks,
)
from verify.studies.engine_trial.ladder import ALL, STEPS, Draw, Shards, climb, fitted
from verify.study import Row
from verify.verifiers.block import Block
from verify.verifiers.recursive_rejection import RecursiveRejection
from verify.verifiers.reflection import Reflection
from verify.verifiers.rejection import Rejection
from verify.verifiers.thorisson import Thorisson

GRID = tuple(10.0 ** (-place / 4) for place in range(1, 17))
"""Levels t at which P(p <= t) <= t is looked at."""
CHANCE = 1e-3
"""That an engine without a fault leaves the band anywhere: all checks and levels together."""
LOOKS = 8
PILOTS = 8
"""How often those that learn do so again."""
MANY = "known law, d = 1: reflection, 20,480 rows"
"""With fewer, chi-square on 1024 cells merges some of them."""
LOUD = 1e-2
"""The level of escalation at which false alarms can be counted; a tenth of the suites, since most go on."""


@dataclass(frozen=True)
class Null:
    """An exact sampler, ``rows`` of it a suite, and the checks it goes through. ``part`` of the suites are enough where
    another null goes through the same checks.
    """

    name: str
    draw: Draw
    checks: Sequence[Check | Learner]
    rows: int
    looks: int = 1
    part: float = 1.0


def nulls(slow: bool) -> list[Null]:
    """Exact rules, most of them refactorings of one another, at each level of evidence. Coupling has no test."""
    line, plane, space = gaussians(1, 0.5), gaussians(2, 1.0, 2), gaussians(4, 1.0)
    pair, both = references()["B"], all_samples(slow)
    return [
        Null("known law, d = 1: rejection", Emitted(Rejection(), line), on_the_line(line.target), 256),
        Null(MANY, Emitted(Reflection(), line), on_the_line(line.target), 20_480),
        Null("known law, d = 4: reflection", Emitted(Reflection(), space), on_the_line(space.target), 512),
        Null("known law, tokens: block", Decoded(Block(), pair), sequence_checks(), 512),
        Null("e-process, d = 4, best of 8 looks", Emitted(Thorisson(0.5), space), [Betting()], 512, LOOKS, 0.5),
        Null("trace, tokens: rejection", Turns(Rejection(), pair), trace_checks(), 512, part=0.25),
        Null("trace, d = 2: rejection", Rounds(Rejection(), plane), trace_checks(), 512),
        Null("trace, d = 2: reflection", Rounds(Reflection(), plane), trace_checks(fresh=False), 512, part=0.25),
        Null("trace, tokens: siblings", Turns(RecursiveRejection(), pair), trace_checks(False), 512),
        Null(
            "two samples, d = 1: rejection, reflection", Against(Rejection(), line, Reflection()), both, 256, part=0.25
        ),
        Null("two samples, d = 4: Thorisson, reflection", Against(Thorisson(0.5), space, Reflection()), both, 512),
    ]


@dataclass(frozen=True, eq=False)
class Measured:
    """The p-values of each check (suites,), and the suites in which escalation confirmed some check at its level."""

    null: Null
    p_values: Mapping[str, np.ndarray]
    loud: tuple[int, int]
    confirmed: int

    @property
    def suites(self) -> int:
        return len(next(iter(self.p_values.values())))


def measure(null: Null, suites: int) -> Measured:
    """So many suites of the null, or its part of them, each with seeds of its own."""
    suites = max(1, round(null.part * suites))
    found: dict[str, list[float]] = {}
    sizes = [null.rows * (look + 1) // null.looks for look in range(null.looks)]
    again, loud, asked, confirmed = -(-suites // PILOTS), 0, 0, 0
    checks: list[Check] = []
    for suite in range(suites):
        if suite % again == 0:
            # Given what they learned, the suites that follow are independent of one another.
            checks = fitted(null.checks, null.draw, suites + suite, 4 * null.rows)
        run = climb(null.draw, checks, sizes, suite, 1e-3)
        for name, values in run.items():
            found.setdefault(name, []).append(min(values))
        if null.looks == 1:
            confirmed += _confirmed(null, checks, suite, run, FALSE_ALARM)
            if suite < max(1, suites // 10):
                loud, asked = loud + _confirmed(null, checks, suite, run, LOUD), asked + 1
    if len(checks) == 1:
        del found[ALL]
    return Measured(null, {name: np.array(values) for name, values in found.items()}, (loud, asked), confirmed)


def _confirmed(null: Null, checks: Sequence[Check], suite: int, run: Mapping[str, list[float]], alpha: float) -> bool:
    """Whether escalation of this suite accuses at level ``alpha``. Its first stage is what ``run`` has counted."""
    suspects = [Suspect(check, alpha / len(checks)) for check in checks]
    level = suspects[0].level(3)
    if min(run[name][0] for name in run if name != ALL) > level:
        return False
    return bool(escalate(Shards(null.draw, null.rows, suite * STEPS), suspects, 1).confirmed)


def exposed(p_values: np.ndarray, checks: int) -> str:
    """The first level at which more suites reject than the band allows; empty where none does.

    The count at t is stochastically at most binomial(suites, t), whose upper quantile is taken at ``CHANCE`` over the
    number of levels and of checks: simultaneous by Bonferroni, whatever depends on what.
    """
    suites = len(p_values)
    for level in GRID:
        if (p_values <= level).sum() > limit(suites, level, checks):
            return f"{(p_values <= level).mean():.3g} at {level:.2g}"
    return ""


def limit(suites: int, level: float, checks: int) -> int:
    """The most suites that may reject at ``level``."""
    return int(binom.isf(CHANCE / (len(GRID) * checks), suites, level))


def table(found: Sequence[Measured]) -> list[Row]:
    """Measured rates of every check with 95 % intervals."""
    many = sum(len(item.p_values) for item in found)
    return [
        {
            "null": item.null.name,
            "check": name,
            "suites": len(values),
            **{f"at {level:g}": _rate(int((values <= level).sum()), len(values)) for level in (1e-2, 1e-3)},
            "beyond the band": exposed(values, many) or "-",
        }
        for item in found
        for name, values in item.p_values.items()
    ]


def _rate(hits: int, runs: int) -> str:
    low, high = proportion_confint(hits, runs, 0.05, method="beta")
    return f"{hits / runs:.2g} [{low:.2g}, {high:.2g}]"


def escalations(found: Sequence[Measured]) -> list[Row]:
    """Suites with a confirmed check."""
    return [
        {
            "null": item.null.name,
            f"confirmed at {LOUD:g}": _rate(*item.loud),
            "suites": item.loud[1],
            f"confirmed at {FALSE_ALARM:g}": item.confirmed,
            "of suites": item.suites,
        }
        for item in found
        if item.null.looks == 1
    ]
