"""Two-sample checks: exact null laws, their size, what they promise and what they certify."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, ks_2samp, norm
from torch import Tensor

from distributions.categorical import Categorical
from distributions.gaussian import Gaussian
from distributions.tape import GeneratorTape
from tests.chance import at_least, at_most
from verify.checks import Check
from verify.checks.classifier import Classifier, ClassifierDifference
from verify.checks.fourier_witness import FourierWitness
from verify.checks.mmd import MaximumMeanDiscrepancy, MedianBandwidth
from verify.checks.quadratic_witness import Quadratic, QuadraticDifference, QuadraticWitness
from verify.checks.sliced import Sliced, SlicedKolmogorovSmirnov, gap_tail
from verify.statistics.held_out import Differences, HeldOut, detectable, heaviest_event, more_often, sign_tail
from verify.statistics.learned import Learner, learners
from verify.statistics.pairs import pairs
from verify.studies.power_per_second import Cell, compare, ladder, needed
from verify.studies.power_per_second.alternatives import ALTERNATIVES
from verify.studies.power_per_second.compared import Subject, wild_bootstrap
from verify.study import studies, write

TAPE = GeneratorTape(0)
Draw = Callable[[GeneratorTape, int], tuple[Tensor, Tensor]]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def linear() -> QuadraticDifference:
    """The held-out test of the mean of one column."""
    return QuadraticDifference(Quadratic(column([0.0]), column([1.0]), column([0.0])[None], column([1.0])), cut=0.0)


# --- the null laws ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0] * 12, [2.0**-k for k in range(12)], [5.0] + [1.0] * 11, [1.0]])
def test_the_tail_of_weighted_signs_is_bounded(weights: list[float]) -> None:
    """All signs are enumerated. Two equal weights attain the bound at sqrt 2, where both are 1/4."""
    unit = np.array(weights) / np.linalg.norm(weights)
    sums = np.sort(np.array(list(product((-1.0, 1.0), repeat=len(unit)))) @ unit)
    for size in sums[sums > 0]:
        assert (sums >= size - 1e-12).mean() <= sign_tail(float(size)) + 1e-12
    assert sign_tail(math.sqrt(2)) == pytest.approx(0.25)
    assert sign_tail(0.0) == sign_tail(-3.0) == 1.0
    assert sign_tail(6.0) == pytest.approx(norm.sf(6.0) / (4 * norm.sf(math.sqrt(2))))


def test_the_gap_of_two_samples_has_its_exact_law() -> None:
    for n in (5, 40):
        if n == 5:  # every order of the pooled sample is as likely
            orders = np.array([signs for signs in product((1, -1), repeat=2 * n) if sum(signs) == 0])
            gaps = np.abs(orders.cumsum(1)).max(1)
            assert all(gap_tail(n, k) == pytest.approx((gaps >= k).mean()) for k in range(n + 2))
        for k in range(2, n + 1):  # of k = 1, which is certain, scipy warns
            first, second = np.arange(n) + 0.5, np.arange(n) + k  # n D = k
            exact = ks_2samp(first, second, method="exact")
            assert exact.statistic == pytest.approx(k / n)
            assert gap_tail(n, k) == pytest.approx(exact.pvalue, rel=1e-9)
    # The limit law 2 exp(-n D^2), Kolmogorov's with effective size n / 2.
    n, k = 10**6, 3000
    assert gap_tail(n, k) == pytest.approx(2 * math.exp(-(k**2) / n), rel=1e-3)


def test_a_gap_of_the_engine_is_that_of_scipy() -> None:
    first, second = GeneratorTape(1).normal("x", (2, 300, 1)).round(decimals=1)  # ties too, none on a cell's edge
    check = SlicedKolmogorovSmirnov(column([0.0]), column([1.0])[None], cells=1000)
    found = check(first + 0.005, second + 0.005, 0.01, TAPE)
    exact = ks_2samp(first[:, 0].numpy(), second[:, 0].numpy(), method="exact")
    assert found.statistic == pytest.approx(exact.statistic) and found.p_value == pytest.approx(exact.pvalue, rel=1e-6)


# --- size ------------------------------------------------------------------------------------------------------------
def normals(dim: int) -> Draw:
    def draw(tape: GeneratorTape, n: int) -> tuple[Tensor, Tensor]:
        x, y = tape.normal("x", (2, n, dim))
        return x, y

    return draw


def cauchys(tape: GeneratorTape, n: int) -> tuple[Tensor, Tensor]:
    x, y = tape.normal("x", (2, n, 2)) / tape.normal("y", (2, n, 2))
    return x, y


def tokens(tape: GeneratorTape, n: int) -> tuple[Tensor, Tensor]:
    x, y = tape.categorical("x", column([0.6, 0.3, 0.07, 0.03]).expand(2, n, 4)).unsqueeze(-1)
    return x, y


SIZES: dict[str, tuple[Learner, Draw, int, bool]] = {
    "mmd": (MedianBandwidth(MaximumMeanDiscrepancy(16, 12, 1999)), normals(2), 60, True),
    "mmd of tokens": (MedianBandwidth(MaximumMeanDiscrepancy(8, 24, 999)), tokens, 60, False),
    "sliced, on the line": (Sliced(cells=256), normals(1), 100, True),
    "sliced": (Sliced(directions=8, cells=64), normals(3), 60, False),
    "quadratic": (QuadraticWitness(), normals(2), 40, False),
    "quadratic, heavy tails": (QuadraticWitness(), cauchys, 40, False),
    "quadratic of tokens": (QuadraticWitness(), tokens, 40, False),
    "fourier": (FourierWitness(frequencies=8), normals(2), 40, False),
}


def rejections(learner: Learner, draw: Draw, n: int, runs: int, seed: int, again: bool = False) -> tuple[int, int]:
    """At levels 1e-2 and 1e-3, a pilot of n pairs and a fresh sample of n, or the pilot ``again``."""
    hits = [0, 0]
    for run in range(runs):
        tape = GeneratorTape(seed + run)
        first = draw(tape, n)
        check = learner.fit(*first, tape)
        tally = check.statistic(*(first if again else draw(tape, n)), tape)
        for level, alpha in enumerate((1e-2, 1e-3)):
            hits[level] += check.judge(tally, alpha).rejects
    return hits[0], hits[1]


def within(hits: tuple[int, int], runs: int, sharp: bool) -> bool:
    return (
        hits[0] <= at_most(1e-2, runs)
        and hits[1] <= at_most(1e-3, runs)
        and (not sharp or hits[0] >= at_least(0.005, runs))  # or it would be blind; half the level is for lattices
    )


@pytest.mark.parametrize("name", ["mmd", "sliced, on the line", "quadratic", "fourier"])
def test_size(name: str) -> None:
    """1000 nulls at 1e-2 and at 1e-3; each limit is passed by chance with probability 1e-6."""
    learner, draw, n, sharp = SIZES[name]
    assert within(rejections(learner, draw, n, 1000, 1000), 1000, sharp)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_size_measured_well(name: str) -> None:
    """10 000 nulls at 1e-2 and at 1e-3; each limit is passed by chance with probability 1e-6."""
    learner, draw, n, sharp = SIZES[name]
    assert within(rejections(learner, draw, n, 10_000, 20_000), 10_000, sharp)


@pytest.mark.slow
def test_size_of_the_classifier() -> None:
    """500 nulls at 1e-2 and 1e-3, each with trees of its own."""
    assert within(rejections(Classifier(rounds=5), normals(2), 128, 500, 40_000), 500, False)


def test_what_is_learned_and_counted_on_the_same_rows_is_no_evidence() -> None:
    """The test above fails for it: the mistake that fresh shards are for."""
    learner, draw, n, _ = SIZES["quadratic"]
    assert not within(rejections(learner, draw, n, 200, 1000, again=True), 200, False)


def test_rows_may_have_laws_of_their_own() -> None:
    """1000 nulls at 1e-2 where pairs share a law that differs from pair to pair."""
    law = Gaussian(torch.linspace(-20, 20, 100)[:, None], torch.linspace(0.1, 4, 100)[:, None])
    hits = [0, 0]
    for seed in range(1000):
        tape = GeneratorTape(seed)
        x = law.sample(tape, "x")
        hits[0] += linear()(x, law, 1e-2, tape).rejects
        hits[1] += MaximumMeanDiscrepancy(8, 12, 999, bandwidth=10.0)(x, law, 1e-2, tape).rejects
    assert max(hits) <= at_most(1e-2, 1000)


# --- what is counted adds up -----------------------------------------------------------------------------------------
def fitted(name: str) -> Check:
    return learners()[name].fit(*normals(3)(GeneratorTape(5), 200), TAPE)


@pytest.mark.parametrize("name", ["mmd", "sliced", "quadratic_witness", "fourier_witness", "classifier"])
def test_a_check_learned_adds_up_and_travels(name: str) -> None:
    check = fitted(name)
    assert isinstance(check, Check) and check.claim.level == "exact" and check.claim.against and check.claim.blind_to
    x, y = normals(3)(GeneratorTape(6), 403)
    whole, parts = check.statistic(x, y, TAPE), check.statistic(x[:150], y[:150], TAPE)
    parts = parts + check.statistic(x[150:], y[150:], TAPE)
    swapped = check.statistic(x.flip(0), y.flip(0), TAPE)
    for item in vars(whole):
        expected = torch.as_tensor(getattr(whole, item)).double()
        for other in (parts, swapped):
            torch.testing.assert_close(torch.as_tensor(getattr(other, item)).double(), expected, rtol=1e-9, atol=1e-9)
    # What another process counts is found again under the statistic asked for here.
    sent = pickle.loads(pickle.dumps(check))
    assert sent == check and {sent.statistic: 1}[check.statistic] == 1
    assert sent.statistic is not check.statistic and fitted(name) == check
    assert check != linear() and check.judge(whole, 1e-3).check == name


def test_the_block_of_a_pair_does_not_depend_on_which_row_is_the_samples() -> None:
    check = MaximumMeanDiscrepancy(4, 16)
    x, y = normals(2)(GeneratorTape(7), 200)
    one, two = check.statistic(x, y, TAPE), check.statistic(y, x, TAPE)
    torch.testing.assert_close(one.sums, -two.sums)
    mixed = torch.rand(200, 1, generator=torch.Generator().manual_seed(0)) < 0.5
    other = check.statistic(torch.where(mixed, x, y), torch.where(mixed, y, x), TAPE)
    assert bool((one.sums.abs().sum(-1) > 0).all())  # all blocks are in use
    # Blocks of the same pairs: for a pair alone in its block the sum is the same up to its sign.
    few = check.statistic(x[:1], y[:1], TAPE).sums, check.statistic(y[:1], x[:1], TAPE).sums
    torch.testing.assert_close(few[0], -few[1])
    assert not torch.allclose(one.sums, other.sums)


# --- what is promised ------------------------------------------------------------------------------------------------
def population_mmd(check: MaximumMeanDiscrepancy, shift: float) -> float:
    """Between N(shift, 1) and N(0, 1): E exp(iwx) = exp(iw shift - w^2 / 2) at every frequency."""
    waves = GeneratorTape(check.seed).normal("mmd.frequencies", (1, check.frequencies)) / check.bandwidth
    apart = (torch.exp(1j * waves * shift) - 1) * torch.exp(-waves.square() / 2)
    return float(apart.abs().square().mean().sqrt())


def test_mmd_sees_what_it_promises_and_its_bound_holds() -> None:
    """Power 0.9 at the promised distance, 200 runs; the bound misses with probability 0.01, 200 runs."""
    check, n, alpha = MaximumMeanDiscrepancy(32, 64, 999, delta=0.01), 2000, 0.01
    x, y = normals(1)(GeneratorTape(0), n)
    promised = check(x, y, alpha, TAPE).smallest
    assert promised is not None and promised < 0.12
    shift = next(s for s in np.linspace(0, 1, 1001) if population_mmd(check, s) >= promised)
    hits = misses = 0
    for seed in range(200):
        x, y = normals(1)(GeneratorTape(seed + 1), n)
        found = check(x + shift, y, alpha, TAPE)
        hits += found.rejects
        assert found.bound is not None
        misses += found.bound < population_mmd(check, shift)
    assert hits >= at_least(0.9, 200) and misses <= at_most(0.01, 200)
    tiny = check(x + 1, y, 1e-6, TAPE)
    assert not tiny.rejects and "cannot reject below 1.0e-03" in tiny.note and tiny.smallest is None


def test_sliced_sees_what_it_promises_and_its_bound_holds() -> None:
    """A jump of the distribution function by the promised distance at the median: power 0.9, bound at 0.99."""
    check, n, alpha = SlicedKolmogorovSmirnov(column([0.5]), column([10.0])[None], 1000, delta=0.01), 2000, 1e-4
    x, y = GeneratorTape(0).uniform("u", (2, n, 1))
    promised = check(x, y, alpha, TAPE).smallest
    assert promised is not None and promised < 0.1
    hits = misses = 0
    for seed in range(200):
        tape = GeneratorTape(seed + 1)
        x, y = tape.uniform("u", (2, n, 1))
        moved = (x < 0.5) & tape.coin("moved", torch.full((n, 1), 2 * promised))
        found = check(torch.where(moved, x + 0.5, x), y, alpha, tape)
        hits += found.rejects
        assert found.bound is not None
        misses += found.bound < promised
    assert hits >= at_least(0.9, 200) and misses <= at_most(0.01, 200)


@pytest.mark.parametrize("n", [40, 4000])
def test_a_held_out_score_sees_what_it_promises(n: int) -> None:
    """A mean of z of the promised size, in its deviations: power 0.9, 300 runs."""
    alpha = 1e-3
    promised = detectable(n, alpha)
    assert promised is not None and promised == linear().judge(Differences(n, 0.0, 1.0, 0, 0), alpha).smallest
    hits = 0
    for seed in range(300):
        x, y = normals(1)(GeneratorTape(seed), n)
        hits += linear()(x + promised * math.sqrt(2), y, alpha, TAPE).rejects
    assert at_least(0.9, 300) <= hits <= 300 - (n > 100)  # and it promises no more than it must
    assert detectable(10, 1e-3) is None


def test_a_certified_difference_is_no_larger_than_the_true_one() -> None:
    """Rare events and common ones, equal laws and others, at confidence 0.95: 2000 pairs of counts each."""
    n, runs = 500, 2000
    generator = np.random.default_rng(0)
    for one, two in ((0.01, 0.01), (0.5, 0.5), (0.05, 0.01), (0.6, 0.4)):
        counts = zip(generator.binomial(n, one, runs), generator.binomial(n, two, runs), strict=True)
        lower = np.array([more_often(int(hits), int(others), n, 0.05) for hits, others in counts])
        assert (lower > one - two + 1e-12).sum() <= at_most(0.05, runs)
        assert (one == two) == (np.median(lower) == 0)
    # 2 acc - 1, with the binomial law of 2 n guesses, where that is the better bound.
    guesses = binomtest(600, 1000).proportion_ci(0.95, method="exact")
    assert more_often(300, 200, n, 0.05) == pytest.approx(2 * guesses.low - 1, rel=1e-9)
    often, seldom = (binomtest(k, n).proportion_ci(0.975, method="exact") for k in (40, 2))
    assert more_often(40, 2, n, 0.05) == pytest.approx(often.low - seldom.high, rel=1e-9)
    assert more_often(0, 0, 0, 0.05) == 0


def test_the_bias_certified_is_below_the_total_variation() -> None:
    """N(0.5, 1) and N(0, 1): TV = 2 Phi(0.25) - 1 = 0.197. The event is learned, the bound from fresh rows."""
    truth = 2 * norm.cdf(0.25) - 1
    x, y = normals(1)(GeneratorTape(3), 40_000)
    check = QuadraticWitness().fit(x[:20_000] + 0.5, y[:20_000], TAPE)
    lower = check.lower(check.statistic(x[20_000:] + 0.5, y[20_000:], TAPE))
    assert 0.75 * truth < lower < truth
    assert f"tv >= {lower:.3g}" in check(x[20_000:] + 0.5, y[20_000:], 1e-6, TAPE).note
    first, second = x[:, 0] + 0.5, y[:, 0]
    assert abs(heaviest_event(first, second) - 0.25) < 0.1  # where the densities cross


# --- what they see, and what they do not -----------------------------------------------------------------------------
def test_each_check_sees_its_kind_and_not_the_others() -> None:
    """Levels 1e-4. The ring of 4 blobs at +-2 on both axes, or on the diagonals: equal means and covariances."""

    def blobs(turned: bool, seed: int) -> Tensor:
        tape = GeneratorTape(seed)
        angle = tape.categorical("blob", torch.ones(6000, 4)).double() * math.pi / 2 + (math.pi / 4) * turned
        return 2 * torch.stack((angle.cos(), angle.sin()), -1) + tape.normal("noise", (6000, 2))

    x, y = blobs(True, 0), blobs(False, 1)
    each: tuple[tuple[Learner, bool], ...] = (
        (QuadraticWitness(), False),
        (FourierWitness(), True),
        (Classifier(), True),
        (MedianBandwidth(), False),  # at the median distance the blobs look alike
    )
    for learner, sees in each:
        check = learner.fit(x[:3000], y[:3000], TAPE)
        assert check(x[3000:], y[3000:], 1e-3, TAPE).rejects is sees, learner
    rho = 0.7
    x, y = normals(2)(GeneratorTape(2), 6000)
    x[:, 1] = rho * x[:, 0] + math.sqrt(1 - rho**2) * x[:, 1]
    for other in (QuadraticWitness(), FourierWitness(), Sliced()):
        assert other.fit(x[:3000], y[:3000], TAPE)(x[3000:], y[3000:], 1e-4, TAPE).rejects, other


TARGETS = {"mean shift": (Sliced(), 200_000, 0.025), "contamination": (QuadraticWitness(), 140_000, 0.35)}
TARGETS["dependence"] = (QuadraticWitness(), 44_000, 0.18)
"""A check, more pairs than it needs at level 1e-3, and the best CPU time measured before for power 0.9."""


@pytest.mark.parametrize("name", TARGETS)
def test_the_alternatives_are_seen(name: str) -> None:
    learner, n, _ = TARGETS[name]
    assert seen(learner, name, n, 3).rejects


def seen(learner: Learner, name: str, n: int, seed: int):  # type: ignore[no-untyped-def]
    x, y = ALTERNATIVES[name](n, GeneratorTape(seed))
    half = 1 << 13 if isinstance(learner, Sliced) else n // 2
    return learner.fit(x[:half], y[:half], TAPE)(x[half:], y[half:], 1e-3, TAPE)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [("mean shift", 165_000), ("contamination", 95_000), ("dependence", 28_000)])
def test_power_and_seconds(name: str, n: int) -> None:
    """Power 0.9 (binomial quantile, 40 runs) within the CPU time; of the quickest run, for a machine that is shared."""
    learner, _, seconds = TARGETS[name]
    hits, spent = 0, math.inf
    for seed in range(40):
        x, y = ALTERNATIVES[name](n, GeneratorTape(seed))
        start = time.process_time()
        half = 1 << 13 if isinstance(learner, Sliced) else n // 2
        hits += learner.fit(x[:half], y[:half], TAPE)(x[half:], y[half:], 1e-3, TAPE).rejects
        spent = min(spent, time.process_time() - start)
    assert hits >= at_least(0.9, 40) and spent < seconds


# --- the study -------------------------------------------------------------------------------------------------------
def test_the_study_at_a_tiny_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verify.studies.power_per_second.compared.find_spec", lambda name: None)
    study = compare(2, 0.05, (256, 512))
    assert list(study.figures) and len(study.tables) == len(ALTERNATIVES)
    for rows in study.tables.values():
        assert {"sliced", "quadratic witness", "Fourier witness", "MMD, Fourier", "scipy ks_2samp"} <= {
            str(row["test"]) for row in rows
        }
        assert all(row["n90"] == "-" for row in rows)  # nothing sees these at n = 512
    assert "none within the seconds" in study.text and "hyppo is left out" in study.text
    assert any(path.suffix == ".svg" for path in write(study, "power_per_second", tmp_path, {}))


def test_a_ladder_climbs_until_it_sees_or_its_seconds_are_spent() -> None:
    sees = Subject(lambda x, y: 1e-4 if len(x) >= 1000 else 0.5)
    cells = ladder(sees, ALTERNATIVES["mean shift"], 2, 1.0)
    assert [cell.pairs for cell in cells] == [256, 1024] and cells[-1].power == 1.0
    assert len(ladder(Subject(lambda x, y: 1.0, most=1100), ALTERNATIVES["mean shift"], 2, 1.0)) == 2
    enough = needed([Cell(100, 0.0, 1.0), Cell(200, 0.8, 2.0), Cell(400, 1.0, 4.0)])
    assert enough is not None and enough == pytest.approx((200 * math.sqrt(2), 2 * math.sqrt(2)))
    assert needed(cells[:1]) is None and needed([Cell(100, 1.0, 1.0)]) == (100.0, 1.0)


def test_the_wild_bootstrap_has_its_size_and_sees_a_shift() -> None:
    """200 nulls at 0.05; more than 29 rejections have probability 1e-6."""
    hits = sum(wild_bootstrap(*normals(1)(GeneratorTape(seed), 24)) <= 0.05 for seed in range(200))
    assert 0 < hits <= at_most(0.05, 200)
    x, y = normals(1)(GeneratorTape(0), 300)
    assert wild_bootstrap(x + 1.0, y) == 1 / 2000


# --- edges -----------------------------------------------------------------------------------------------------------
def test_rows_that_are_not_numbers_do_not_stop_a_check() -> None:
    x, y = normals(2)(GeneratorTape(8), 1000)
    x[::3] = torch.nan
    x[1, 0], y[2, 1] = torch.inf, -torch.inf
    for learner in (QuadraticWitness(), FourierWitness(), Sliced(), MedianBandwidth()):
        check = learner.fit(x[:500], y[:500], TAPE)
        found = check(x[500:], y[500:], 1e-3, TAPE)
        assert found.p_value is not None and math.isfinite(found.statistic) and found.rejects, learner


def test_pairs_are_drawn_from_a_law_or_given() -> None:
    x = torch.zeros(50, 2)
    law = Gaussian(torch.arange(50.0)[:, None].expand(50, 2) * 100, torch.ones(50, 2))
    _, drawn = pairs(x, law, GeneratorTape(1))
    assert float((drawn - law.mean).abs().max()) < 6 and drawn.dtype == torch.float64
    law_of_all = Categorical(column([0.5, 0.5]))
    _, tokens_drawn = pairs(torch.zeros(50, dtype=torch.long), law_of_all, GeneratorTape(1))
    assert tokens_drawn.shape == (50, 1) and set(tokens_drawn.flatten().tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match="draw as many rows"):
        pairs(x, torch.zeros(49, 2), TAPE)
    for learner in learners().values():
        with pytest.raises(ValueError, match="too few"):
            learner.fit(x[:5], x[:5], TAPE)
    with pytest.raises(ValueError, match="blocks"):
        MaximumMeanDiscrepancy()(x, x, 0.01, TAPE)


def test_constant_rows_and_empty_evidence_say_nothing() -> None:
    x = torch.ones(200, 3)
    for learner in learners().values():
        check = learner.fit(x, x, TAPE)
        assert check(x, x, 0.01, TAPE).p_value == 1.0, learner
    assert isinstance(linear(), HeldOut) and linear().judge(Differences(0, 0.0, 0.0, 0, 0), 0.01).p_value == 1.0


def test_learners_are_read_from_the_folder() -> None:
    found = learners()
    assert set(found) >= {"mmd", "sliced", "quadratic_witness", "fourier_witness", "classifier"}
    assert all(isinstance(item, Learner) for item in found.values())
    assert replace(found["sliced"], directions=3).fit(*normals(2)(TAPE, 100), TAPE).directions.shape == (2, 3)  # type: ignore[type-var,attr-defined]
    assert issubclass(ClassifierDifference, HeldOut) and "power_per_second" in studies()
