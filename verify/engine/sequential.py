"""Draw until it is decided: anytime-valid tests and certificates, looked at as the sample grows."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import count as counting
from itertools import islice

from verify.checks import Check, Statistic
from verify.checks.betting import Betting
from verify.checks.sliced import SlicedKolmogorovSmirnov
from verify.engine import Source, Tallies, growing, tallied
from verify.engine.bounds import PairHistogram, certified, shown, shown_between
from verify.engine.conclusion import Evidence, sees
from verify.engine.escalation import Suspect, merged
from verify.progress import DELAY
from verify.records import Finding
from verify.statistics.held_out import HeldOut
from verify.statistics.histogram import TransformHistogram

STRIDE = 1.25
"""The sample grows by this factor from one look at the whole suite to the next."""
WIDER = 4
"""Rows on which a bias is measured, by those that were drawn before it was found."""
ASIDE = (TransformHistogram(), PairHistogram())
"""What a witness against a known law is chosen from."""
SECONDS = 600.0
"""The time that is spent where nothing else is said."""


@dataclass(frozen=True)
class Limits:
    """The certificate wanted, the ``seconds`` it may take (SECONDS where None), one minus the confidence."""

    epsilon: float
    seconds: float | None
    delta: float


def share(look: int) -> float:
    """The part of an error that look 1, 2, 3, .. may spend: 1 / (look (look + 1)), which sums to one."""
    return 1 / (look * (look + 1))


@dataclass
class Watch:
    """What the looks have shown so far: the only state there is beside the tallies."""

    suspects: Sequence[Suspect]
    limits: Limits
    metric: str | None
    looks: int = 0
    tested: tuple[Finding, ...] = ()
    certificates: tuple[Finding, ...] = ()
    sees: tuple[str, ...] = ()
    log_e: float = 0.0

    @property
    def bound(self) -> float:
        """The smallest certificate at the last look."""
        return min((item.bound for item in self.certificates if item.bound is not None), default=1.0)

    def bets(self, tallies: Tallies) -> list[tuple[Suspect, Finding]]:
        """Bets that have won: at any time, each within its own budget (Ville)."""
        won = []
        for suspect in self.suspects:
            if isinstance(suspect.check, Betting):
                check: Check = suspect.check
                finding = check.judge(tallies[check.statistic], suspect.alpha)
                if finding.p_value is not None:
                    self.log_e = -math.log(max(finding.p_value, 5e-324))
                if finding.rejects:
                    won.append((suspect, finding))
        return won

    def look(self, tallies: Tallies) -> list[tuple[Suspect, Finding]]:
        """The whole suite, at this look's share: those that reject, at the root of their level, are to be confirmed."""
        self.looks += 1
        part = share(self.looks)
        pairs = [(item, tallies[item.check.statistic]) for item in self.suspects]
        found = [(item, item.check.judge(tally, math.sqrt(item.alpha * part))) for item, tally in pairs]
        # Bets have been tested before every look, and at the level of their own.
        self.tested = tuple(finding for _, finding in found)
        self.sees = tuple(filter(None, (sees(item.check, finding) for item, finding in found)))
        certifying = [(item.check, tally) for item, tally in pairs]
        self.certificates = certified(certifying, self.metric, self.limits.delta * part, 1e-3)
        return [(item, finding) for item, finding in found if finding.rejects and not isinstance(item.check, Betting)]


def until_decided(
    source: Source,
    suspects: Sequence[Suspect],
    kind: str,
    limits: Limits,
    *,
    metric: str | None,
    first: int = 0,
    columns: int = 1,
    aside: Sequence[Statistic] = ASIDE,
    executor: Executor | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[Evidence, int]:
    """Draw shards until a certificate is at most ``limits.epsilon``, a test convicts, the time is spent, or somebody
    interrupts; the evidence so far, and the rows drawn. Nothing is lost by an interrupt.

    Bets are looked at after every shard. The whole suite is looked at when the sample has grown by a quarter: look j
    spends the part 1 / (j (j + 1)) of each check's false alarms and of the certificates' error, which sum to one, so
    that all looks hold together wherever one stops. A check that rejects at the root of its level there must reject
    again, at the same level, on as many fresh rows; so the false alarms are within its budget, and a witness is counted
    on rows that did not choose it, from ``aside``. What bets win needs no confirmation.
    """
    say = say or _stderr
    deadline = time.monotonic() + (limits.seconds if limits.seconds is not None else SECONDS)
    watch = Watch(suspects, limits, metric)
    evidence = Evidence(kind, (), columns=columns)
    tallies: Tallies = {}
    rows = used = spent = 0
    looked, next_look, spoken = True, 0.0, time.monotonic()
    # Shards on which a suspicion is confirmed are the odd ones, so that the even ones may go on if it is not.
    fresh = counting(first + 1, 2)
    try:
        for tallies in growing([item.check.statistic for item in suspects], source, counting(first, 2), executor):
            used, rows, looked = used + 1, next(iter(tallies.values())).n, False
            late = time.monotonic() > deadline
            won, rejected = watch.bets(tallies), []
            if used >= next_look or late or won:
                next_look, looked = used * STRIDE, True
                rejected = watch.look(tallies)
            if won:
                evidence = replace(evidence, confirmed=tuple(finding for _, finding in won))
            if time.monotonic() > spoken + DELAY:
                spoken = time.monotonic()
                say(f"n = {rows:.3g}, bound {watch.bound:.3g}, e-value 10^{watch.log_e / math.log(10):.1f}")
            if won or rejected:
                again, wider = tuple(islice(fresh, used)), tuple(islice(fresh, WIDER * used))
                spent += len(again)
                evidence, counted = _confirm(evidence, source, rejected, aside, again, tallies, executor)
                if evidence.confirmed:
                    spent += len(wider)
                    evidence = _measure(evidence, source, suspects, aside, counted, wider, limits.delta, executor)
            if evidence.confirmed or watch.bound <= limits.epsilon or late:
                break
    except KeyboardInterrupt:
        say(f"interrupted at n = {rows:.3g}: the verdict so far")
    if not looked:
        watch.look(tallies)
    evidence = replace(evidence, tested=watch.tested, certificates=watch.certificates, sees=watch.sees)
    return evidence, rows + spent * (rows // used if used else 0)


def _confirm(
    evidence: Evidence,
    source: Source,
    rejected: Sequence[tuple[Suspect, Finding]],
    aside: Sequence[Statistic],
    shards: Sequence[int],
    tallies: Tallies,
    executor: Executor | None,
) -> tuple[Evidence, Tallies]:
    """Those that reject again on fresh shards, and all that was counted so far."""
    wanted = [item.check.statistic for item, _ in rejected]
    wanted += list(aside) if evidence.kind == "known law" else []
    more = tallied(wanted, source, shards, executor) if wanted else {}
    found = [item.check.judge(more[item.check.statistic], finding.alpha) for item, finding in rejected]
    confirmed = (*evidence.confirmed, *(item for item in found if item.rejects))
    doubted = evidence.doubted if confirmed else (*evidence.doubted, *(item.check for item in found))
    return replace(evidence, confirmed=confirmed, doubted=tuple(dict.fromkeys(doubted))), merged((tallies, more))


def _measure(
    evidence: Evidence,
    source: Source,
    suspects: Sequence[Suspect],
    aside: Sequence[Statistic],
    counted: Tallies,
    shards: Sequence[int],
    delta: float,
    executor: Executor | None,
) -> Evidence:
    """The bias of a witness that was chosen on what is ``counted``, on shards that are fresh once more."""
    if evidence.kind == "known law":
        return replace(evidence, shown=shown(counted, tallied(aside, source, shards, executor), delta))
    checks = [item.check for item in suspects]
    able = [check for check in checks if isinstance(check, (HeldOut, SlicedKolmogorovSmirnov))]
    last = tallied([check.statistic for check in able], source, shards, executor) if able else {}
    return replace(evidence, shown=shown_between(checks, counted, last, delta))


def _stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
