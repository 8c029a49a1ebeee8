"""Tests that are repeated on fresh, larger samples before they accuse anybody: neither flaky nor blind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from scipy.stats import norm

from distributions.tape import GeneratorTape
from verify.checks import Check, Statistic, Tally
from verify.engine import Source, Tallies, tallied
from verify.records import Finding
from verify.statistics.learned import Learner

SHARES = {"trace": 0.3, "known law": 0.5, "two samples": 0.2}
"""Of the false-alarm budget, by the kind of evidence; what is not there leaves its share to the others."""
STAGES, GROWTH = 3, 4
FALSE_ALARM = 1e-6
PILOT_DRAWS = 1 << 41
"""The seed of what is drawn to learn from a pilot."""

Blocks = Mapping[str, Sequence[Check | Learner]]


@dataclass(frozen=True)
class Suspect:
    """A check, and the false alarms ``alpha`` that it may raise in all."""

    check: Check
    alpha: float

    def level(self, stages: int) -> float:
        """What it is tested at in each of ``stages`` stages."""
        return float(self.alpha ** (1 / stages))


@dataclass(frozen=True, eq=False)
class Stage:
    """What one stage found: shards ``first`` up to ``first + shards``, and a finding for each check still suspected."""

    first: int
    shards: int
    tallies: Tallies
    found: tuple[tuple[Suspect, Finding], ...]

    @property
    def rejected(self) -> tuple[Suspect, ...]:
        return tuple(suspect for suspect, finding in self.found if finding.rejects)

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(finding for _, finding in self.found)


@dataclass(frozen=True, eq=False)
class Escalation:
    """All stages, the ``confirmed`` checks (those that rejected in every one), and the first shard that is unused."""

    suite: tuple[Suspect, ...]
    stages: tuple[Stage, ...]
    confirmed: tuple[Suspect, ...]
    unused: int

    @property
    def earlier(self) -> Tallies:
        """The tallies of all stages but the last."""
        return merged(stage.tallies for stage in self.stages[:-1])


def merged(every: Iterable[Tallies]) -> Tallies:
    """The sums of tallies, each over those that have it."""
    total: dict[Statistic, Tally] = {}
    for tallies in every:
        for statistic, tally in tallies.items():
            total[statistic] = total[statistic] + tally if statistic in total else tally
    return total


def suite(blocks: Blocks, source: Source, alpha: float = FALSE_ALARM, pilot: int = 0) -> tuple[Suspect, ...]:
    """Every check with its part of ``alpha``, which is split by SHARES among the blocks and evenly within each.

    Learners are given the shard ``pilot`` of the source, which must not be counted afterwards. Raises KeyError for a
    block that has no share.
    """
    present = {name: checks for name, checks in blocks.items() if checks}
    total = sum(SHARES[name] for name in present)
    learners = any(not isinstance(item, Check) for checks in present.values() for item in checks)
    seen = source(pilot) if learners else None
    tape = GeneratorTape(PILOT_DRAWS + pilot)
    found = []
    for name, checks in present.items():
        for item in checks:
            check = item.fit(*(seen or source(pilot)), tape) if isinstance(item, Learner) else item
            found.append(Suspect(check, alpha * SHARES[name] / total / len(checks)))
    return tuple(found)


def escalate(
    source: Source,
    suspects: Sequence[Suspect],
    shards: int,
    *,
    first: int = 0,
    stages: int = STAGES,
    aside: Callable[[Stage], Iterable[Statistic]] = lambda stage: (),
    executor: Executor | None = None,
    follow: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Escalation:
    """Test all ``suspects`` on ``shards`` fresh shards, those that reject on up to 4 times as many, and again.

    Stage i draws n_i = 4^(i-1) n_1 and tests at a = alpha_c^(1/S), alpha_c the check's own budget and S the number of
    stages; a check is *confirmed* if it rejects in all. Given the past each stage is a test of level a, so the
    probability of a confirmation without a cause is at most sum_c a_c^S = sum_c alpha_c, however the checks depend; the
    expected cost under exactness is at most n_1 (1 + 4 m a + ..): 1.04 n_1 at m a = 0.01. Power is lost at the first
    stage only, since the others are larger. A stage is smaller than that, and never less than n_1, where the suspect
    with the smallest p-value needs no more: 4 ((z_a + 3) / z_seen)^2 n_1, a function of the past, so that all levels
    hold. From the second stage on ``aside``, a function of the first, is counted as well: a witness is found there.
    """
    done: list[Stage] = []
    suspected = tuple(suspects)
    size = shards
    while suspected and len(done) < stages:
        wanted = [item.check.statistic for item in suspected] + (list(aside(done[0])) if done else [])
        tallies = tallied(wanted, source, follow(range(first, first + size)), executor)
        found = tuple((item, item.check.judge(tallies[item.check.statistic], item.level(stages))) for item in suspected)
        done.append(Stage(first, size, tallies, found))
        first, suspected = first + size, done[-1].rejected
        if suspected:
            size = _next(done[-1], shards, GROWTH ** len(done))
    return Escalation(tuple(suspects), tuple(done), suspected, first)


def _next(stage: Stage, shards: int, growth: int) -> int:
    worst, level = min((finding.p_value or 0.0, finding.alpha) for _, finding in stage.found if finding.rejects)
    # What it showed at this stage's size, scaled back to that of the first.
    seen = float(norm.isf(worst)) / (stage.shards / shards) ** 0.5
    needed = 4 * ((float(norm.isf(level)) + 3) / seen) ** 2 if seen > 0 else growth
    return shards * max(1, min(growth, -int(-needed // 1)))


def expected_cost(suspects: Sequence[Suspect], stages: int = STAGES) -> float:
    """A bound on the rows drawn from an exact sampler, in units of the first stage's."""
    total = 1.0
    for stage in range(1, stages):
        total += GROWTH**stage * sum(item.level(stages) ** stage for item in suspects)
    return total
