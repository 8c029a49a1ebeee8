"""Escalation, looks, bounds and verdicts: the false alarms of the whole, its cost, its power, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from scipy.stats import binom, norm
from torch import Tensor

from distributions.gaussian import Gaussian
from distributions.law import Law
from distributions.tape import GeneratorTape, Tape
from tests.chance import TAIL
from verify.checks import Check, Tally
from verify.checks.betting import Betting
from verify.checks.chi_square import ChiSquare
from verify.checks.ks import KolmogorovSmirnov
from verify.checks.neyman import Neyman
from verify.checks.sliced import Sliced
from verify.engine import tallied
from verify.engine.bounds import (
    Cells,
    PairHistogram,
    certified,
    heaviest,
    rows_to_certify,
    rows_to_reject,
    shown,
    shown_between,
)
from verify.engine.conclusion import Evidence, conclude
from verify.engine.escalation import SHARES, Suspect, escalate, expected_cost, merged, suite
from verify.engine.reference_defects import DEFECTS, equivalents, smallest
from verify.engine.sequential import Limits, share, until_decided
from verify.records import CheckClaim, Finding
from verify.statistics.histogram import Histogram, TransformHistogram
from verify.statistics.learned import Learner
from verify.statistics.transform import Uniform

torch.set_num_threads(1)


@dataclass(frozen=True, eq=False)
class Total(Tally):
    """The sum of the numbers."""

    total: float


@dataclass(frozen=True)
class Sum:
    """Of all of them times ``sign``."""

    sign: int = 1

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> Total:
        return Total(len(sample), self.sign * float(sample.sum()))


@dataclass(frozen=True)
class Mean(Check):
    """The two-sided z-test of standard normals, whose p-value is exactly uniform."""

    sign: int = 1
    claim: ClassVar[CheckClaim] = CheckClaim("exact", against="a shift", blind_to="the rest")

    @property
    def statistic(self) -> Sum:
        return Sum(self.sign)

    def judge(self, tally: Total, alpha: float) -> Finding:
        score = abs(tally.total) / math.sqrt(tally.n)
        return Finding("", "", "mean", score, 2 * float(norm.sf(score)), alpha, tally.n, 0, metric="mean")


@dataclass(frozen=True)
class Shards:
    """Rows N(shift, I) of ``dim`` columns a shard; ``period``: after so many shards the rows come again."""

    seed: int = 0
    rows: int = 16
    shift: float = 0.0
    dim: int = 1
    period: int = 1 << 30

    def __call__(self, shard: int) -> tuple[Tensor, Gaussian]:
        rows = GeneratorTape(100_003 * self.seed + shard % self.period).normal("rows", (self.rows, self.dim))
        rows[:, 0] += self.shift
        return rows, Gaussian(torch.zeros(self.dim), torch.ones(self.dim))


def alone(alpha: float) -> tuple[Suspect, ...]:
    return (Suspect(Mean(), alpha),)


def test_false_alarms_of_an_exact_test_are_what_they_are_said_to_be() -> None:
    """3000 null runs at 1e-2, of three stages at 0.215 each: the count is within both binomial quantiles of 1e-6. The
    same rows again and again, the planted error, would confirm 21 % of them."""
    runs, alpha = 3000, 1e-2
    hits = sum(len(escalate(Shards(seed), alone(alpha), 1).confirmed) for seed in range(runs))
    assert binom.ppf(TAIL, runs, alpha) <= hits <= binom.isf(TAIL, runs, alpha)
    again = sum(len(escalate(Shards(seed, period=1), alone(alpha), 1).confirmed) for seed in range(200))
    assert again > binom.isf(TAIL, 200, alpha)


def test_false_alarms_of_a_suite() -> None:
    """3000 null runs at a family-wise 1e-3: more than 15 with a confirmed check have probability 1e-6."""
    blocks = {"known law": [KolmogorovSmirnov(bits=8), Neyman(bits=8), ChiSquare(8, bits=8)]}
    cost = hits = 0
    for seed in range(3000):
        source = Shards(seed, rows=200)
        found = escalate(source, suite(blocks, source, alpha=1e-3), 1)
        hits += bool(found.confirmed)
        cost += found.unused
    assert hits <= binom.isf(TAIL, 3000, 1e-3)
    # At a family-wise 1e-3 stages are at 0.07 each; the cost of 1e-6 is computed below.
    assert cost / 3000 <= expected_cost(suite(blocks, Shards(), alpha=1e-3)) + 0.2


def test_expected_cost_is_what_it_is_and_small() -> None:
    """One exact test, stages at 0.1: 1 + 4 * 0.1 + 16 * 0.01 = 1.56 at most; measured over 2000 runs, of standard
    deviation below 3, it is within 5 standard errors. At a family-wise 1e-6 it is 1.04 for one test of 1e-2 a stage."""
    suspects = alone(1e-3)
    assert expected_cost(suspects) == pytest.approx(1.56)
    mean = sum(escalate(Shards(seed), suspects, 1).unused for seed in range(2000)) / 2000
    assert 1.0 < mean <= 1.56 + 5 * 3 / math.sqrt(2000)
    assert expected_cost(alone(1e-6)) == pytest.approx(1.0416)


def test_budget_is_split_by_shares() -> None:
    blocks = {"known law": [Mean(), Mean(-1)], "two samples": [Mean(2)], "trace": []}
    found = suite(blocks, Shards(), alpha=1e-6)
    assert sum(item.alpha for item in found) == pytest.approx(1e-6)
    assert found[0].alpha == found[1].alpha == pytest.approx(1e-6 * 0.5 / 0.7 / 2)
    assert found[2].alpha == pytest.approx(1e-6 * 0.2 / 0.7) and sum(SHARES.values()) == pytest.approx(1.0)
    assert found[0].level(3) ** 3 == pytest.approx(found[0].alpha)
    with pytest.raises(KeyError):
        suite({"rumour": [Mean()]}, Shards())


def test_learners_learn_from_the_pilot_and_from_nothing_else() -> None:
    seen = []

    @dataclass(frozen=True)
    class Pupil(Learner):
        def fit(self, sample: Tensor, truth: Tensor | Law, tape: Tape) -> Check:
            seen.append(sample)
            return Mean()

    source = Shards(3)
    (only,) = suite({"two samples": [Pupil()]}, source, pilot=5)
    assert only.check == Mean() and len(seen) == 1 and torch.equal(seen[0], source(5)[0])


def test_what_is_wrong_is_confirmed_by_the_same_check_on_fresh_and_more_rows() -> None:
    """A shift of 0.4 standard errors of one stage's mean would be missed; one of 5 is seen nearly always."""
    source = Shards(1, rows=1000, shift=0.16)
    found = escalate(source, (*alone(1e-6), Suspect(Mean(-1), 1e-9)), 1)
    assert [item.check for item in found.confirmed] == [Mean(), Mean(-1)]
    first, second, third = found.stages
    assert (first.first, second.first) == (0, 1) and third.first == 1 + second.shards
    assert found.unused == third.first + third.shards and 1 <= second.shards <= 4 and 1 <= third.shards <= 16
    assert set(found.earlier) == {Sum(), Sum(-1)} and found.earlier[Sum()].n == 1000 * (1 + second.shards)


def test_gross_errors_do_not_cost_the_whole_escalation() -> None:
    found = escalate(Shards(1, rows=1000, shift=3.0), alone(1e-6), 8)
    assert [stage.shards for stage in found.stages] == [8, 8, 8]
    # A faint one is given all of it.
    faint = next(item for seed in range(99) if len((item := escalate(Shards(seed), alone(0.125), 2)).stages) == 3)
    assert [stage.shards for stage in faint.stages] == [2, 8, 32]


def test_what_is_put_aside_is_counted_from_the_second_stage_on() -> None:
    source = Shards(2, rows=500, shift=1.0)
    aside = TransformHistogram(8)
    found = escalate(source, alone(1e-6), 1, aside=lambda stage: [aside])
    assert [aside in stage.tallies for stage in found.stages] == [False, True, True]
    assert found.earlier[aside].n == 500 and merged([]) == {}


def test_the_bias_of_a_witness_is_a_lower_bound() -> None:
    """300 biases at confidence 0.95 of a law at TV 0.01: more than 36 above it have probability 1e-6.
    Counted on the rows that chose it, the planted error, the bound fails far more often."""
    above = cheated = 0
    statistic = TransformHistogram(6)
    for seed in range(300):
        tape = GeneratorTape(seed)
        parts = []
        for _ in range(2):
            u = tape.uniform("u", (400, 1))
            moved = tape.coin("moved", torch.full((400, 1), 0.02)) & (u < 0.5)
            parts.append(statistic(torch.where(moved, u + 0.5, u), Uniform(), tape))
        found = shown({statistic: parts[0]}, {statistic: parts[1]}, 0.05)
        same = shown({statistic: parts[0]}, {statistic: parts[0]}, 0.05)
        assert found is not None and same is not None
        above += found.lower > 0.01
        cheated += same.lower > 0.01
    assert above <= binom.isf(TAIL, 300, 0.05) < cheated


def test_witnesses_say_where() -> None:
    counts = torch.tensor([[125] * 8, [100] * 8])
    counts[1, 5] += 200
    event, promise = heaviest(Histogram(1000, counts), 1000, 1e-6)
    assert event == Cells(1, 5, 6, inside=True) and event.mass(8) == 1 / 8 and promise > 0
    fresh = Histogram(1000, counts)
    found = shown({TransformHistogram(3): fresh}, {TransformHistogram(3): fresh}, 1e-6)
    assert found is not None and "column 1 of the transform lies in (0.625, 0.75]" in found.words
    low = Histogram(1000, torch.tensor([[300, 100, 50, 50]]))
    found = shown({TransformHistogram(2): low}, {TransformHistogram(2): low}, 1e-6)
    assert found is not None and "lies below 0.25" in found.words and shown({}, {}, 0.1) is None


def test_dependence_of_two_columns_has_a_witness() -> None:
    """u and v = u: their circular difference is 0; with v = 1 - u it is their sum. Total variation is 1."""
    u = GeneratorTape(0).uniform("u", (2000, 1))
    for pair in (torch.cat((u, u), 1), torch.cat((u, 1 - u), 1)):
        tally = PairHistogram()(pair, Uniform(2), GeneratorTape())
        found = shown({PairHistogram(): tally}, {PairHistogram(): tally}, 1e-6)
        assert found is not None and found.lower > 0.9 and "circular" in found.words
    assert PairHistogram()(u, Uniform(), GeneratorTape()).counts.shape == (0, 64)


def test_two_samplers_have_a_witness_too() -> None:
    """Of two normals 0.3 apart, TV 0.119: 200 biases at confidence 0.9; above 46 wrong: 1e-6."""
    above, positive = 0, 0
    for seed in range(200):
        tape = GeneratorTape(seed)
        pilot = [tape.normal("pilot", (200, 1)) for _ in range(2)]
        check = Sliced().fit(pilot[0], pilot[1], tape)
        tallies = []
        for _ in range(2):
            sample = tape.normal("x", (600, 1)) + 0.3
            tallies.append({check.statistic: check.statistic(sample, tape.normal("y", (600, 1)), tape)})
        found = shown_between([check, Mean()], tallies[0], tallies[1], 0.1)
        assert found is not None and "half-space" in found.words
        above += found.lower > 0.1192
        positive += found.lower > 0
    assert above <= binom.isf(TAIL, 200, 0.1) and positive > 100
    assert shown_between([Mean()], {}, {}, 0.1) is None


def test_certificates_are_the_largest_of_a_metric_and_the_smallest_of_metrics() -> None:
    sample, law = Shards(rows=4000, dim=2)(0)
    checks: list[Check] = [KolmogorovSmirnov(), KolmogorovSmirnov(bits=4), ChiSquare(8), Mean(), Betting()]
    pairs = [(check, check.statistic(sample, law, GeneratorTape())) for check in checks]
    (ks,) = certified(pairs, "ks", 1e-6, 1e-3)
    each = [check.judge(tally, 1e-3).bound for check, tally in pairs[:2]]
    assert ks.bound == max(each)  # type: ignore[type-var]
    every = certified(pairs, None, 1e-6, 1e-3)
    assert {item.metric for item in every} == {"ks", "tv on cells", "feature mean"}
    assert [item.bound for item in every] == sorted(item.bound for item in every)  # type: ignore[type-var]
    # Three metrics have a third of delta each.
    third = replace(checks[2], delta=1e-6 / 3).judge(pairs[2][1], 1e-3)  # type: ignore[call-arg]
    assert next(item for item in every if item.metric == "tv on cells").bound == third.bound
    assert certified(pairs, "mmd", 1e-6, 1e-3) == ()


def test_the_rows_that_certify_do() -> None:
    """16 / eps^2 rows of an exact sampler have a bound below eps nineteen times in twenty: fewer than 78 of 100 have
    probability 1e-6; and a fifth of the rows, the planted error, never do."""
    check, epsilon = KolmogorovSmirnov(bits=12), 0.05
    found = check.judge(check.statistic(*Shards(rows=100)(0), GeneratorTape()), 1e-3)
    n = rows_to_certify(found, epsilon, 1e-6)
    assert n == pytest.approx(16 / epsilon**2, rel=0.01) and rows_to_certify(found, epsilon, 1e-6, 1, 2) >= 2 * n - 1

    def certify(rows: int) -> int:
        tallies = [check.statistic(*Shards(seed, rows=rows)(0), GeneratorTape()) for seed in range(100)]
        return sum((check.judge(tally, 1e-3).bound or 1.0) <= epsilon for tally in tallies)

    assert certify(n) >= binom.ppf(TAIL, 100, 0.95) and certify(n // 5) == 0
    other = replace(found, metric="mmd", bound=0.2, n=1000)
    assert rows_to_certify(other, 0.1, 1e-6) == 5000


def test_the_rows_that_reject_do() -> None:
    """((z_a + z_.9) / z_seen)^2 n rows see the effect that was seen nine times in ten: fewer than 141 of 200 have
    probability 1e-6."""
    check, level = Mean(), 1e-4
    shift = 1.5 / math.sqrt(400)
    seen = check.judge(Total(400, 400 * shift), level)
    found = rows_to_reject([seen, replace(seen, p_value=0.9), replace(seen, p_value=None)])
    assert found is not None and found[0] == seen
    hits = 0
    for seed in range(200):
        sample, law = Shards(seed, rows=found[1], shift=shift)(0)
        hits += check(sample, law, level, GeneratorTape()).rejects
    assert binom.ppf(TAIL, 200, 0.9) <= hits <= 199
    assert rows_to_reject([replace(seen, p_value=0.5)]) is None


def test_shares_of_looks_sum_to_one() -> None:
    assert sum(share(look) for look in range(1, 10_001)) == pytest.approx(1 - 1 / 10_001)


def run_until(source: Shards, alpha: float, epsilon: float, seconds: float = 60.0, **options: Any) -> Any:
    checks: list[Check] = [KolmogorovSmirnov(bits=10), Neyman(bits=10), Betting()]
    suspects = suite({"known law": checks}, source, alpha=alpha)
    limits = Limits(epsilon, seconds, 1e-6)
    return until_decided(source, suspects, "known law", limits, metric="ks", say=lambda line: None, **options)


def test_looking_until_it_is_decided_raises_no_more_false_alarms() -> None:
    """150 null runs of about 30 looks at a family-wise 0.05: more than 22 convictions have probability 1e-6."""
    convicted = 0
    for seed in range(150):
        evidence, rows = run_until(Shards(seed, rows=100), 0.05, 0.12)
        convicted += bool(evidence.confirmed)
        assert evidence.confirmed or evidence.certificates[0].bound <= 0.12 and rows >= 500
    assert convicted <= binom.isf(TAIL, 150, 0.05)


def test_until_stops_at_the_certificate_or_at_the_conviction() -> None:
    evidence, rows = run_until(Shards(0, rows=2048), 1e-6, 0.02)
    assert not evidence.confirmed and 0.015 < evidence.certificates[0].bound <= 0.02 and rows < 120_000
    evidence, rows = run_until(Shards(0, rows=2048, shift=0.1), 1e-6, 0.005)
    assert evidence.confirmed and evidence.shown is not None and 0 < evidence.shown.lower < 0.0399
    verdict = conclude(evidence, epsilon=0.005, delta=1e-6, subject="f", scope="", seconds=0.0, metric="ks")
    assert verdict.status == "lossy" and verdict.bias_lower == evidence.shown.lower


def test_until_keeps_what_it_has_when_the_time_is_over_or_somebody_interrupts() -> None:
    evidence, rows = run_until(Shards(0, rows=2048), 1e-6, 1e-4, seconds=0.3)
    verdict = conclude(evidence, epsilon=1e-4, delta=1e-6, subject="f", scope="", seconds=0.3, metric="ks")
    assert verdict.status == "inconclusive" and 1e-4 < verdict.bias_upper < 0.5 and rows >= 2048

    @dataclass(frozen=True)
    class Tired(Shards):
        def __call__(self, shard: int) -> tuple[Tensor, Gaussian]:
            if shard >= 40:  # the twentieth: every other shard is kept for confirmations
                raise KeyboardInterrupt
            return super().__call__(shard)

    said: list[str] = []
    source = Tired(0, rows=512)
    suspects = suite({"known law": [KolmogorovSmirnov()]}, source)
    evidence, rows = until_decided(source, suspects, "known law", Limits(1e-4, 60, 1e-6), metric="ks", say=said.append)
    assert rows == 20 * 512 and evidence.certificates[0].n == rows and "interrupted at n = 1.02e+04" in said[-1]


def test_a_suspicion_that_is_not_confirmed_convicts_nobody() -> None:
    """Rows that are wrong in even shards only: the odd ones, which are kept for confirmation, are right."""

    @dataclass(frozen=True)
    class Half(Shards):
        def __call__(self, shard: int) -> tuple[Tensor, Gaussian]:
            rows, law = super().__call__(shard)
            return rows + 0.3 * (shard % 2 == 0), law

    source = Half(0, rows=512)
    suspects = suite({"known law": [KolmogorovSmirnov()]}, source)
    limits = Limits(1e-4, 0.5, 1e-6)
    evidence, _ = until_decided(source, suspects, "known law", limits, metric="ks", say=lambda line: None)
    assert not evidence.confirmed and evidence.doubted == ("ks",)


FOUND = Finding("", "", "ks", 0.004, 0.03, 1e-3, 100_000, 0, metric="ks", bound=0.012, smallest=0.009)


def said(evidence: Evidence) -> str:
    return str(conclude(evidence, epsilon=0.01, delta=1e-6, subject="fn", scope="here", seconds=0.0, metric="ks"))


def test_verdicts_read_well() -> None:
    text = said(Evidence("known law", (FOUND,), certificates=(FOUND,)))
    assert text.startswith("inconclusive [known law] fn: 0 <= bias <= 0.012 (ks, confidence 0.999999)")
    assert "to decide: 158911 " in text and "rows certify ks <= 0.01 if it is exact; " in text
    assert "rows reject by ks if the departure seen (p = 0.03) is real" in text
    assert "a mean shifted by 0.023 standard deviations, an extra mass of 0.018 on one 64th" in text
    close = replace(FOUND, bound=0.009)
    text = said(Evidence("known law", (close,), certificates=(close,), doubted=("ks",)))
    assert text.startswith("lossless [known law] fn: 0 <= bias <= 0.009 (ks") and "to decide" not in text
    assert "does not bound the total variation" in text and "ks rejected once, and was not confirmed" in text
    text = said(Evidence("two samples", (replace(FOUND, bound=None, p_value=0.6),)))
    assert "no check certifies a bound in this metric; nothing seen departs by more than chance" in text
    hit = replace(FOUND, p_value=1e-9, note="column 0 of 1 departs most")
    text = said(Evidence("known law", (hit,), confirmed=(hit,), certificates=(close,)))
    assert text.startswith("lossy [known law] fn: 0 <= bias <= 1 (tv") and "no single event certifies" in text
    assert "ks rejects on fresh rows as it did before: p = 1e-09 (column 0 of 1 departs most)" in text


BIG = 400_000


@pytest.mark.parametrize(
    ("name", "metric", "measure"),
    [
        ("shift", "ks", lambda u: _gap(u).abs().max()),
        ("shift", "rms gap", lambda u: _gap(u).square().mean().sqrt()),
        ("shift", "feature mean", lambda u: (2 * u[:, 0] - 1).mean()),
        ("shift", "legendre norm", lambda u: 3**0.5 * (2 * u[:, 0] - 1).mean()),
        ("shift", "tv on cells", lambda u: _half_root_divergence(u)),
        ("shift", "anderson-darling distance", lambda u: _weighted(u)),
        ("bump", "ks", lambda u: _gap(u).abs().max()),
        ("bump", "rms gap", lambda u: _gap(u).square().mean().sqrt()),
        ("bump", "tv on cells", lambda u: _half_root_divergence(u)),
        ("bump", "anderson-darling distance", lambda u: _weighted(u)),
        ("correlation", "feature mean", lambda u: ((2 * u[:, 0] - 1) * (2 * u[:, 1] - 1)).mean()),
        ("correlation", "correlation", lambda u: 3 * ((2 * u[:, 0] - 1) * (2 * u[:, 1] - 1)).mean()),
    ],
)
def test_reference_defects_have_the_size_that_a_metric_says(
    name: str, metric: str, measure: Callable[[Tensor], Tensor]
) -> None:
    """To first order: 8 % at a size of 0.1, and what 400 000 rows leave to chance (5 standard errors)."""
    columns = DEFECTS[name].plant(0.1, BIG, GeneratorTape(1))
    assert DEFECTS[name].sizes[metric](float(measure(columns))) == pytest.approx(0.1, rel=0.08, abs=0.01)


def _gap(u: Tensor) -> Tensor:
    edges = torch.arange(1, 1024).double() / 1024
    return torch.searchsorted(u[:, 0].sort().values, edges) / len(u) - edges


def _weighted(u: Tensor) -> Tensor:
    edges = torch.arange(1, 1024).double() / 1024
    return (_gap(u).square() / (edges * (1 - edges))).mean().sqrt()


def _half_root_divergence(u: Tensor) -> Tensor:
    share = torch.bincount((u[:, 0] * 64).long().clamp(max=63), minlength=64) / len(u)
    return 0.5 * (64 * (share - 1 / 64).square().sum() - 63 / len(u)).sqrt()


@pytest.mark.parametrize("name", ["shift", "bump", "correlation"])
def test_defects_of_the_size_printed_are_seen(name: str) -> None:
    """Of 60 samples with the defect of the size printed fewer than 39 rejections have probability 1e-6 at power 0.9."""
    checks: Sequence[Check] = (KolmogorovSmirnov(), Neyman(), ChiSquare(64), Betting())
    n, alpha = 20_000, 1e-3

    def judged(columns: Tensor) -> list[Finding]:
        return [check(columns, Uniform(2), alpha, GeneratorTape()) for check in checks]

    size = smallest(judged(GeneratorTape(0).uniform("u", (n, 2))))[name]
    seen = sum(any(item.rejects for item in judged(DEFECTS[name].plant(size, n, GeneratorTape(s)))) for s in range(60))
    assert seen >= binom.ppf(TAIL, 60, 0.9)
    assert any(f"{size:.2g}" in words for words in equivalents(judged(GeneratorTape(0).uniform("u", (n, 2)))))


def test_one_column_has_no_dependence_to_see() -> None:
    assert set(smallest([FOUND, replace(FOUND, metric="correlation")], 1)) == {"shift", "bump"}


def test_any_executor_gives_the_same_escalation() -> None:
    class Here(Executor):
        def submit(self, fn: Any, /, *parts: Any, **named: Any) -> Any:
            from concurrent.futures import Future

            future: Future[Any] = Future()
            future.set_result(fn(*parts, **named))
            return future

    source, suspects = Shards(1, rows=300, shift=0.4), alone(1e-6)
    one, other = escalate(source, suspects, 2), escalate(source, suspects, 2, executor=Here())
    assert [stage.findings for stage in one.stages] == [stage.findings for stage in other.stages]
    assert tallied([Sum()], source, range(3))[Sum()].n == 900
