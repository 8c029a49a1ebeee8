"""What a verdict says besides yes and no: a certified bound, the bias that a witness shows, the rows still lacking."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from distributions.tape import Tape
from verify.checks import Check, Tally
from verify.checks.excess_acceptance import exceeds
from verify.checks.sliced import Excesses
from verify.engine import Tallies
from verify.records import Finding
from verify.statistics.held_out import Differences, HeldOut
from verify.statistics.histogram import Histogram, TransformHistogram
from verify.statistics.transform import uniforms


@dataclass(frozen=True)
class PairHistogram:
    """For every two columns of the transform, (u - v) mod 1 and (u + v) mod 1 on 2^``bits`` equal cells: uniform where
    the two are independent, and heavier about 0 where they move together, or against each other. Of many columns only
    the ``most`` pairs that are nearest each other.
    """

    bits: int = 6
    most: int = 512

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> Histogram:
        columns = uniforms(sample, truth, tape).nan_to_num(0.0)
        cells = 1 << self.bits
        first, second = torch.triu_indices(columns.shape[1], columns.shape[1], 1)
        near = (second - first).argsort(stable=True)[: self.most]
        counts = [
            torch.bincount((turn % 1.0 * cells).long().clamp_(0, cells - 1), minlength=cells)
            for one, other in zip(first[near].tolist(), second[near].tolist(), strict=True)
            for turn in (columns[:, one] - columns[:, other], columns[:, one] + columns[:, other])
        ]
        return Histogram(len(columns), torch.stack(counts) if counts else torch.zeros(0, cells, dtype=torch.long))


@dataclass(frozen=True)
class Cells:
    """An event: column ``column`` of a histogram within cells ``low`` .. ``high`` - 1, or outside of them."""

    column: int
    low: int
    high: int
    inside: bool

    def mass(self, cells: int) -> float:
        """Its probability under the truth."""
        within = (self.high - self.low) / cells
        return within if self.inside else 1 - within

    def hits(self, tally: Histogram) -> int:
        """Rows in it."""
        within = int(tally.counts[self.column, self.low : self.high].sum())
        return within if self.inside else tally.n - within


@dataclass(frozen=True)
class Shown:
    """A bias that fresh rows show: the total variation is at least ``lower``, for the reason that ``words`` give."""

    lower: float
    words: str


def heaviest(tally: Histogram, n: int, delta: float) -> tuple[Cells, float]:
    """The interval of cells, or complement of one, for which ``n`` more rows promise the largest certified bias, among
    the heaviest of each column (Kuiper's); and that promise.
    """
    cells = tally.counts.shape[1]
    steps = torch.arange(cells + 1, dtype=torch.float64) / cells
    gap = torch.nn.functional.pad(tally.counts.cumsum(-1) / tally.n, (1, 0)) - steps
    best: tuple[float, Cells] | None = None
    for column, (top, bottom) in enumerate(zip(gap.argmax(-1).tolist(), gap.argmin(-1).tolist(), strict=True)):
        event = Cells(column, min(top, bottom), max(top, bottom), inside=bottom <= top)
        mass, found = event.mass(cells), event.hits(tally) / tally.n
        promise = found - mass - float(norm.isf(delta)) * math.sqrt(max(mass * (1 - mass), 1 / n) / n)
        if best is None or promise > best[0]:
            best = promise, event
    assert best is not None
    return best[1], best[0]


def shown(earlier: Tallies, last: Tallies, delta: float) -> Shown | None:
    """The bias of one event chosen on the ``earlier`` tallies and counted on the ``last``: TV >= P(event) - mass, with
    Clopper and Pearson's bound at confidence 1 - ``delta``. None where no histogram is among both.

    Every column of a histogram is a function of the row that is uniform under the truth, so its bias is one of the row.
    """
    chosen = []
    for statistic, tally in earlier.items():
        fresh = last.get(statistic)
        if isinstance(tally, Histogram) and isinstance(fresh, Histogram) and len(tally.counts):
            event, promise = heaviest(tally, fresh.n, delta)
            chosen.append((promise, event, fresh, statistic))
    if not chosen:
        return None
    _, event, fresh, statistic = max(chosen, key=lambda item: item[0])
    cells = fresh.counts.shape[1]
    hits, mass = event.hits(fresh), event.mass(cells)
    column = f"column {event.column} of {type(statistic).__name__}"
    if isinstance(statistic, PairHistogram):
        column = "the circular sum or difference of two columns of the transform"
    elif isinstance(statistic, TransformHistogram):
        column = f"column {event.column} of the transform"
    low, high = event.low / cells, event.high / cells
    where = f"{'in' if event.inside else 'outside'} ({low:.4g}, {high:.4g}]"
    if low == 0 or high == 1:
        where = f"{'below' if event.inside == (low == 0) else 'above'} {high if low == 0 else low:.4g}"
    words = (
        f"{column} lies {where} with frequency {hits / fresh.n:.5f} in {fresh.n} fresh rows, and with probability "
        f"{mass:.5f} under the target"
    )
    return Shown(exceeds(hits, fresh.n, mass, delta), words)


def shown_between(checks: Iterable[Check], earlier: Tallies, last: Tallies, delta: float) -> Shown | None:
    """The same between two samplers: of the events chosen without the ``last`` tallies, the one that these show to be
    more frequent by the most, each with an equal part of ``delta``. Learned scores chose theirs on a pilot; of the
    half-spaces of histograms it is the one that departed most on the ``earlier`` tallies. None where there are neither.

    Of the 2 n guesses "the event says which sampler", n + hits - others are right, with mean (1 + difference) / 2, and
    Clopper and Pearson's bound holds for chances that differ as well (Hoeffding 1956, Theorem 4).
    """
    events: list[tuple[int, int, str]] = []
    for check in checks:
        fresh, before = last.get(check.statistic), earlier.get(check.statistic)
        if isinstance(check, HeldOut) and isinstance(fresh, Differences):
            events.append((fresh.hits - fresh.others, fresh.n, f"the event that {check.name} learned occurs in"))
        elif isinstance(fresh, Excesses) and isinstance(before, Excesses):
            gap = before.excess.cumsum(-1).flatten()
            place = int(gap.abs().argmax())
            more = int(fresh.excess.cumsum(-1).flatten()[place]) * (1 if gap[place] > 0 else -1)
            events.append((more, fresh.n, "a half-space holds"))
    found = []
    for more, n, what in events:
        right, _ = proportion_confint(n + more, 2 * n, alpha=2 * delta / len(events), method="beta")
        words = f"{what} {more} more of {n} fresh rows than of as many of the target"
        found.append(Shown(max(0.0, 2 * float(right) - 1), words))
    return max(found, key=lambda item: item.lower, default=None)


def certified(
    pairs: Iterable[tuple[Check, Tally]], metric: str | None, delta: float, alpha: float
) -> tuple[Finding, ...]:
    """For ``metric``, or for every metric where that is None, the finding with the largest bound in it; smallest first.

    The distance in a metric is the largest over all functions that its checks look at together; the function that the
    truth makes largest is fixed before the sample is drawn, and the bound of the check it belongs to is at most the
    largest, so one part of ``delta`` is enough for a metric. Metrics have equal parts, so that the smallest of their
    bounds is one as well, at confidence 1 - ``delta``; which metrics there are does not depend on the sample.
    """
    able = [
        (check, tally, finding.metric)
        for check, tally in pairs
        if hasattr(check, "delta")
        for finding in (check.judge(tally, alpha),)
        if finding.bound is not None and metric in (None, finding.metric)
    ]
    part = delta / max(1, len({name for _, _, name in able}))
    largest: dict[str, Finding] = {}
    for check, tally, name in able:
        found = replace(check, delta=part).judge(tally, alpha)  # type: ignore[type-var]
        if name not in largest or (found.bound or 0.0) > (largest[name].bound or 0.0):
            largest[name] = found
    return tuple(sorted(largest.values(), key=lambda item: item.bound or 0.0))


def rows_to_certify(finding: Finding, epsilon: float, delta: float, columns: int = 1, samples: int = 1) -> int:
    """Rows with which an exact sampler's bound is at most ``epsilon``, nineteen times in twenty.

    For the Kolmogorov-Smirnov distance over m columns ((c + sqrt(ln(1/delta) / 2)) / epsilon)^2, with c the 5 % point
    sqrt(ln(2 m / 0.05) / 2) of its law (1.36 at m = 1; 16 / epsilon^2 at delta = 1e-6), and for two ``samples`` twice
    that, of each. For another the bound found,
    which falls as 1 / sqrt n, and a quarter more.
    """
    if finding.metric == "ks":
        noise = math.sqrt(math.log(2 * columns / 0.05) / 2)
        return math.ceil(samples * ((noise + math.sqrt(math.log(1 / delta) / 2)) / epsilon) ** 2)
    return math.ceil(1.25 * finding.n * ((finding.bound or 0.0) / epsilon) ** 2)


def rows_to_reject(findings: Sequence[Finding]) -> tuple[Finding, int] | None:
    """The finding with the smallest p-value for its level, and rows with which it would reject nine times in ten if the
    departure seen is real: ((z_a + z_.9) / z_seen)^2 n. None where nothing departs by a standard deviation.
    """
    tested = [item for item in findings if item.p_value is not None and 0 < item.p_value < 0.16]
    if not tested:
        return None
    worst = max(tested, key=lambda item: float(norm.isf(item.p_value)) / float(norm.isf(item.alpha)))
    wanted = float(norm.isf(worst.alpha)) + float(norm.isf(0.1))
    return worst, math.ceil(worst.n * (wanted / float(norm.isf(worst.p_value))) ** 2)
