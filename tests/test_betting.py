"""The e-process: what it is, that it may be looked at whenever one likes, and how soon it sees a shift."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import legval
from scipy.stats import binom
from torch import Tensor

from distributions.gaussian import Gaussian
from distributions.tape import GeneratorTape
from tests.chance import TAIL
from verify.checks.betting import Betting, BettingBetween, BoundedFeatures, polynomials, radius
from verify.statistics.transform import Uniform

torch.set_num_threads(1)


def test_features_are_legendre_polynomials_within_one() -> None:
    u = GeneratorTape(0).uniform("u", (500, 2))
    found = polynomials(u, 4)
    wanted = [legval(2 * u.numpy() - 1, np.eye(5)[degree]) for degree in range(1, 5)]
    assert torch.allclose(found, torch.as_tensor(np.concatenate(wanted, 1)), atol=1e-12)
    ends = polynomials(torch.tensor([[0.0], [1.0]]).double(), 4)
    assert ends.abs().max() == 1 and found.abs().max() <= 1


def test_wealth_is_at_most_that_of_the_bets_it_stands_for() -> None:
    """exp(s S - psi(s) V) <= prod (1 + s f): Fan, Grama and Liu 2015, for every stake and sample."""
    features = polynomials(GeneratorTape(1).uniform("u", (50, 1)), 1)[:, 0]
    for stake in (1e-4, 0.01, 0.3, 0.7):
        for f in (features, -features, features.abs()):
            bound = stake * f.sum() - (-math.log1p(-stake) - stake) * f.square().sum()
            exact = torch.log1p(stake * f).sum()
            assert bound <= exact + 1e-12
            assert stake > 0.1 or bound >= exact - 0.05


def test_sums_of_pairs_are_those_of_their_products() -> None:
    x, y = (GeneratorTape(seed).uniform("u", (70, 3)) for seed in (1, 2))

    def products(u: Tensor) -> Tensor:
        low = polynomials(u, 2)
        pairs = [low[:, i] * low[:, j] for i in range(6) for j in range(i + 1, 6) if i % 3 != j % 3]
        return torch.cat((polynomials(u, 4), torch.stack(pairs, -1)), -1)

    one = BoundedFeatures()(x, Uniform(3), GeneratorTape())
    assert torch.allclose(one.sums, products(x).sum(0)) and torch.allclose(one.squares, products(x).square().sum(0))
    assert len(one.sums) == 4 * 3 + 2 * 3 * 2
    # Of two samples: the squashed columns are u itself where the rows are its normal scores.
    two = BoundedFeatures(centre=(0.0,) * 3, spread=(1.0,) * 3)(
        torch.special.ndtri(x), torch.special.ndtri(y), GeneratorTape()
    )
    apart = (products(x) - products(y)) / 2
    assert torch.allclose(two.sums, apart.sum(0)) and torch.allclose(two.squares, apart.square().sum(0))


def test_it_is_an_e_value() -> None:
    """E e <= 1: the mean of 3000 e-values of 8 rows, whose stakes are at most a half, is within 5 standard errors."""
    check, rows = Betting(), GeneratorTape(3).uniform("u", (3000, 8, 1))
    found = [check.judge(check.statistic(each, Uniform(), GeneratorTape()), 1.0) for each in rows]
    e = np.array([10 ** float(item.note.split("10^")[1].split(";")[0]) for item in found])
    # The note has one digit, so e is known to a factor 10^0.05: a bound on the mean to 12 %.
    assert e.mean() <= 1.12 + 5 * e.std() / math.sqrt(len(e))


def looks(check: Betting, runs: int, shards: int, alpha: float, shift: float = 0.0, dim: int = 1) -> int:
    """Runs that reject at any of their looks, after every shard of 64 rows."""
    truth, hits = Gaussian(torch.zeros(dim), torch.ones(dim)), 0
    for seed in range(runs):
        tape, total = GeneratorTape(seed), None
        for _ in range(shards):
            tally = check.statistic(tape.normal("rows", (64, dim)) + shift, truth, tape)
            total = tally if total is None else total + tally
            if check.judge(total, alpha).rejects:
                hits += 1
                break
    return hits


def test_one_may_look_after_every_shard() -> None:
    """Ville: of 300 runs of 20 looks at level 0.05 more than 36 reject with probability 1e-6 at most."""
    assert looks(Betting(), 300, 20, 0.05) <= binom.isf(TAIL, 300, 0.05)
    assert looks(Betting(), 30, 30, 0.05, 0.3, 2) == 30


def test_without_paying_for_the_mixture_it_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted error: the best bet of all, chosen afterwards, and what the others cost refunded."""
    monkeypatch.setattr(torch, "logsumexp", lambda value, dim: value.amax(dim) + 4.0)
    assert looks(Betting(), 100, 20, 0.05) > binom.isf(TAIL, 100, 0.05)


def test_its_bound_holds_at_all_times() -> None:
    """A shift of 0.3 has E P_1 = 2 Phi(0.3 / sqrt 2) - 1; the bound at 1 - delta = 0.9 falls below it at some of 100
    looks in at most 10 % of 200 runs: more than 46 have probability 1e-6."""
    truth = math.erf(0.3 / 2)
    check = Betting(degrees=1, delta=0.1)
    missed = 0
    for seed in range(200):
        columns = torch.special.ndtr(GeneratorTape(seed).normal("u", (6400, 1)) + 0.3)
        sums = polynomials(columns, 1).reshape(100, 64).sum(1).cumsum(0)
        n = torch.arange(64, 6401, 64)
        bounds = (sums.abs() / n).tolist()
        missed += any(m + radius(k, 0.1, 1.0) < truth for m, k in zip(bounds, n.tolist(), strict=True))
    assert missed <= binom.isf(TAIL, 200, 0.1)
    whole = check.judge(check.statistic(columns, Uniform(), GeneratorTape()), 1e-3)
    assert whole.bound == pytest.approx(bounds[-1] + radius(6400, 0.1, 1.0))


@pytest.mark.parametrize("delta", [0.3, 0.05])
def test_radius_is_uniform_in_time_and_not_lavish(delta: float) -> None:
    """3000 walks of fair signs, 2000 steps: the line is crossed at most as often as delta says, and not never."""
    steps = torch.where(GeneratorTape(5).uniform("u", (3000, 2000)) < 0.5, 1.0, -1.0).double().cumsum(1)
    line = torch.tensor([n * radius(n, delta, 1.0, tuned=100) for n in range(1, 2001)]).double()
    crossed = int((steps > line).any(1).sum())
    assert 3000 * delta / 10 < crossed <= binom.isf(TAIL, 3000, delta)
    # Against a fixed sample size it costs a tenth at n = 1e5, and a fifth at 1e9.
    for n, price in ((10**5, 1.1), (10**9, 1.21)):
        assert radius(n, 1e-6, 0.5) < price * math.sqrt(math.log(1e6) / (2 * n))


def test_smallest_defect_is_seen_nine_times_in_ten() -> None:
    check, n, alpha = Betting(), 8192, 1e-3
    law = Gaussian(torch.zeros(1), torch.ones(1))
    smallest = check.judge(check.statistic(GeneratorTape().normal("x", (n, 1)), law, GeneratorTape()), alpha).smallest
    assert smallest is not None
    shift = math.sqrt(math.pi) * smallest
    hits = 0
    for seed in range(100):
        rows = GeneratorTape(seed).normal("x", (n, 1)) + shift
        hits += check.judge(check.statistic(rows, law, GeneratorTape()), alpha).rejects
    assert hits >= binom.ppf(TAIL, 100, 0.9)


def test_two_samplers_are_bet_between_in_their_own_scale() -> None:
    """300 null pairs at level 0.05; and a shift of three tenths of a scale of 1000 about 5e4."""
    hits = seen = 0
    for seed in range(300):
        tape = GeneratorTape(seed)
        pilot, x, y = (5e4 + 1e3 * tape.normal("x", (200, 2)) for _ in range(3))
        check = BettingBetween().fit(pilot[:100], pilot[100:], tape)
        hits += check.judge(check.statistic(x, y, tape), 0.05).rejects
        if seed < 20:
            far = 5e4 + 1e3 * tape.normal("x", (4000, 2))
            found = check.judge(check.statistic(far + 300, 5e4 + 1e3 * tape.normal("x", (4000, 2)), tape), 1e-6)
            seen += found.rejects
            assert found.statistic == pytest.approx(math.erf(0.3 / 2), abs=0.05)
    assert hits <= binom.isf(TAIL, 300, 0.05) and seen == 20


def stops(runs: int, alpha: float = 1e-3, shift: float = 0.02) -> list[int]:
    """Rows after which the bets on N(shift, 1) against N(0, 1) win, in shards of 1024."""
    law, check, found = Gaussian(torch.zeros(1), torch.ones(1)), Betting(), []
    for seed in range(runs):
        tape, total = GeneratorTape(seed), None
        while total is None or not check.judge(total, alpha).rejects:
            tally = check.statistic(tape.normal("x", (1024, 1)) + shift, law, tape)
            total = tally if total is None else total + tally
        found.append(total.n)
    return found


def test_a_shift_of_two_hundredths_is_seen_with_sixty_thousand_rows() -> None:
    """The median stop is 6e4 (the price is ln(1000) + ln(bets) at a growth of 1.9e-4 a row); of 41 runs more than 35
    stop within 90 000 or fewer than 4 within 40 000 only if it is far from that."""
    found = np.array(stops(41))
    assert 45_000 < np.median(found) < 80_000


@pytest.mark.slow
def test_median_stop_of_400_runs() -> None:
    found = np.array(stops(400))
    assert 56_000 < np.median(found) < 66_000 and np.quantile(found, 0.9) < 110_000
