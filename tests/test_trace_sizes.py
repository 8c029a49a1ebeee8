"""Checks of traces: their size, the tails of the p-values that it rests on, and defects of the promised size."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import binom
from torch.special import ndtr

from distributions.tape import GeneratorTape
from tests.chance import TAIL
from tests.trace_checks_under_test import TOKEN, found, name_of, on_the_line
from verify.checks.accepted_length import AcceptedLength
from verify.checks.coin import Coin
from verify.checks.proposal import Proposal
from verify.references import references
from verify.statistics.scores import bernoulli
from verify.statistics.trace import Trace, Traced
from verify.verifiers.rejection import Rejection


def null_trace(seed: int, rows: int) -> Trace:
    """Small calls of an exact rule, on tokens or on Gaussians by turns."""
    if seed % 2:
        trace = on_the_line(Rejection(), rows, seed, 1.0, 2, 2)
    else:
        pair = references()["B"]
        trace = Traced(Rejection(), pair.target, pair.drafter, 2, rows)(seed)[0]
    return replace(trace, call=torch.arange(rows) // 50)


def sizes(runs: int, rows: int) -> None:
    checks = (*TOKEN, Coin(False), AcceptedLength(False))
    hits, judged = {name_of(check): [0, 0] for check in checks}, set()
    for seed in range(runs):
        for name, item in found(checks, [null_trace(seed, rows)], 1e-2).items():
            for place, alpha in enumerate((1e-2, 1e-3)):
                hits[name][place] += item.p_value is not None and item.p_value <= alpha
            if item.p_value is not None and item.p_value < 0.9:
                judged.add(name)
    # One counts what never happens and says 1; the other's is the p-value of a bound.
    assert judged == set(hits) - {"Violations", "Martingale"}
    for name, counts in hits.items():
        for count, alpha in zip(counts, (1e-2, 1e-3), strict=True):
            assert count <= binom.isf(TAIL / (2 * len(hits)), runs, alpha), name


def test_sizes() -> None:
    """250 exact rounds at 1e-2 and 1e-3: more rejections than the binomial quantile have probability 1e-6 in all."""
    sizes(250, 200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sizes_of_many() -> None:
    """10,000 of them, to the same false alarm."""
    sizes(10_000, 200)


def tail_ratio(n: int, chance: float, count: int) -> float:
    """The p-value of ``count`` events of ``n`` over twice the binomial tail."""
    event = torch.arange(n) < count
    one = torch.ones(n, 1, dtype=torch.float64)
    tail = binom.sf(count - 1, n, chance) if count > n * chance else binom.cdf(count, n, chance)
    return float(bernoulli(n, one, event, chance * one[:, 0]).p_values[0]) / (2 * tail)


@pytest.mark.parametrize(("n", "chance"), [(40, 0.5), (200, 0.1), (2000, 0.01), (2000, 0.99), (100_000, 0.3)])
def test_tails_are_those_of_the_binomial(n: int, chance: float) -> None:
    """Pearson's type III with half a unit off, from a variance of 10 on, down to 1e-8: never half of the truth, and six
    times of it where the law ends nearby (40 coins).
    """
    spread = math.sqrt(n * chance * (1 - chance))
    for deviations in (-5, -3, -2, 2, 3, 5):
        count = round(n * chance + deviations * spread)
        if 0 <= count <= n:
            assert 0.5 < tail_ratio(n, chance, count) < 6, (deviations, count)


def test_sums_of_small_variance_are_not_judged() -> None:
    few = bernoulli(5, torch.ones(5, 1).double(), torch.ones(5).bool(), torch.full((5,), 0.01).double())
    assert few.p_values[0] == 1.0


def test_coins_are_seen_at_the_promised_size() -> None:
    """An acceptance that is wrong by the promise, on average: nine times in ten, less binomial noise (1e-6)."""
    check, alpha, rows, runs = Coin(), 1e-3, 2_000, 200
    size = found([check], [on_the_line(Rejection(), rows, 0)], alpha)["Coin"].smallest
    assert size is not None and 0.01 < size < 0.04
    hits = 0
    for seed in range(runs):
        trace = on_the_line(Rejection(), rows, seed)
        # Each node is tossed; those refused are kept with the probability that lifts the mean by the promise.
        refused = 1 - trace.acceptance(True).mean()  # type: ignore[union-attr]
        lift = GeneratorTape(10**7 + seed).coin("lift", torch.full((rows, 1), float(size / refused)))
        hits += found([check], [replace(trace, kept=trace.kept | lift)], alpha)["Coin"].rejects
    assert hits >= binom.ppf(TAIL, runs, 0.9)


def test_drafts_are_counted_in_the_cells_of_their_own_law() -> None:
    """Cells against their chance, which sum to nothing; and a mean that is off is seen nine times in ten (1e-6)."""
    check, alpha, rows, runs = Proposal(), 1e-3, 4_000, 100
    trace = on_the_line(Rejection(), rows, 0)
    tally = check.statistic(trace, None, GeneratorTape())
    cells = torch.histc(ndtr(trace.drafted.flatten()), 16, 0, 1) - rows / 16
    assert torch.allclose(tally.total[2:], cells, rtol=0, atol=1e-9) and abs(float(tally.total[2:].sum())) < 1e-9
    assert torch.allclose(tally.variance[2:], torch.full((16,), rows * 15 / 256).double())
    size = check.judge(tally, alpha).smallest
    assert size is not None and size < 0.1
    hits = 0
    for seed in range(runs):
        drafted = GeneratorTape(seed).normal("drafted", (rows, 1, 1)) + size * math.sqrt(math.pi / 3)
        hits += found([check], [replace(trace, drafted=drafted)], alpha)["Proposal"].rejects
    assert hits >= binom.ppf(TAIL, runs, 0.9)
