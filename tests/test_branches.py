"""The check of branches: silent on every exact rule, however little it keeps, and sharp between laws that are near."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from distributions.gaussian import FullGaussian, Gaussian
from distributions.tape import GeneratorTape
from verify.checks.branches import Branches, cell_edges
from verify.checks.ks import KolmogorovSmirnov
from verify.continuous_references import apart
from verify.records import Finding
from verify.saboteurs.gaussian_residual_target import GaussianResidualTarget
from verify.saboteurs.reflection_about_mean import ReflectionAboutMean
from verify.spaces.gaussian import Budget, judge_gaussian
from verify.spaces.gaussian_pairs import Pair, pairs
from verify.spaces.gaussian_rows import Rows
from verify.spaces.gaussian_rules import Function, rows_of
from verify.spaces.gaussian_witnesses import witnesses
from verify.statistics.transform import Uniform
from verify.statistics.witness import measure
from verify.verifier import Verifier
from verify.verifiers.lenient import Lenient
from verify.verifiers.poisson_race import PoissonRace
from verify.verifiers.reflection import Reflection
from verify.verifiers.rejection import Rejection
from verify.verifiers.thorisson import Thorisson

torch.set_num_threads(1)


def checked(rows: Rows, alpha: float = 1e-6) -> Finding:
    return Branches()(rows.trace, None, alpha, GeneratorTape())


@pytest.mark.parametrize("dim", [1, 4, 16])
@pytest.mark.parametrize("delta", [0.1, 1.0, 6.0])
@pytest.mark.parametrize(
    "rule", [Rejection(), Reflection(), PoissonRace(), Thorisson(0.5)], ids=lambda r: type(r).__name__
)
def test_exact_rules_are_not_accused(rule: Verifier, delta: float, dim: int) -> None:
    """Also those that keep less than they may. False alarm 1e-6 each."""
    found = checked(rows_of(rule, apart("pair", dim, delta), [20_000], 3))
    assert found.p_value is not None and found.p_value > 1e-6


def test_its_size_is_below_its_level() -> None:
    """Maximal couplings, where every inequality is an equality: at level 0.05, more than 20 of 150 have probability
    below 1e-5. The tests are exact and the events many, so that they are fewer than 0.05 in truth.
    """
    found = [checked(rows_of(Reflection(), apart("pair", 2, 0.5), [2000], turn)) for turn in range(150)]
    assert sum((item.p_value or 0.0) < 0.05 for item in found) <= 20


@pytest.mark.parametrize("delta", [-0.3, 0.3])
def test_masses_are_those_of_the_two_laws(delta: float) -> None:
    """Kept: min(p, q); replaced: (p - q)+. By quadrature in every cell, whichever side the draft is on."""
    one = torch.ones(1).double()
    pair = Pair.of("pair", Gaussian(0 * one, one), Gaussian(delta * one, one))
    rows = Rows(pair, torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1).long(), torch.zeros(1).long())
    masses = Branches().statistic(rows.trace, None, GeneratorTape()).masses
    edges = cell_edges(abs(delta) * torch.ones(()).double()).clamp(-40, 40)  # away from the draft
    points = torch.linspace(-40, 40, 800_001, dtype=torch.float64)
    target, draft = (torch.exp(-((points - at) ** 2) / 2) / math.sqrt(2 * math.pi) for at in (0.0, -abs(delta)))
    for row, density in zip(
        masses[:, :, 0], (torch.minimum(target, draft), (target - draft).clamp(min=0)), strict=True
    ):
        mass = torch.cat((torch.zeros(1), density.cumsum(0) * 1e-4)).double()
        at = mass[((edges + 40) / 1e-4).round().long()]
        assert torch.allclose(row, at.diff(), rtol=0, atol=1e-4)
    assert float(masses.sum()) == pytest.approx(1, abs=1e-12)
    assert float(masses[0].sum()) == pytest.approx(2 * stats.norm.cdf(-0.15), abs=1e-12)


@pytest.mark.parametrize("turned", [False, True])
def test_near_laws_show_in_their_branches_first(turned: bool) -> None:
    """Means 0.1 apart, 4,000 rows: 160 are replaced. Kolmogorov-Smirnov on all rows sees nothing of it; and the sign of
    the first axis does not matter.
    """
    pair = apart("near", 3, 0.1)
    if turned:
        pair = replace(pair, axes=torch.cat((-pair.axes[:, :1], pair.axes[:, 1:]), 1))
    rows = rows_of(GaussianResidualTarget(), pair, [4000], 4)
    assert (checked(rows).p_value or 0.0) < 1e-9
    whole = KolmogorovSmirnov()(rows.columns, Uniform(5), 1e-6, GeneratorTape())
    assert (whole.p_value or 0.0) > 1e-6
    assert (checked(rows_of(Reflection(), pair, [4000], 4)).p_value or 0.0) > 1e-6


def test_it_sees_what_lies_across_and_that_it_depends_on_the_place() -> None:
    """Replaced rows whose radius across follows their place: each of the two has the right law."""
    pair = apart("pair", 3, 1.0)
    rows = rows_of(Reflection(), pair, [40_000], 5)
    refused = torch.nonzero(~rows.accepted).squeeze(1)
    axis = (pair.target.mean - pair.draft.mean) / (pair.target.mean - pair.draft.mean).norm()
    centred = rows.emitted[refused] - pair.target.mean
    place = centred @ axis
    across = centred - place[:, None] * axis
    matched = across[across.norm(dim=-1).argsort()][place.argsort().argsort()]
    emitted = rows.emitted.clone()
    emitted[refused] = pair.target.mean + place[:, None] * axis + matched
    assert (checked(replace(rows, emitted=emitted)).p_value or 0.0) < 1e-12
    emitted[refused] = pair.target.mean + place[:, None] * axis + 0.5 * across
    assert (checked(replace(rows, emitted=emitted)).p_value or 0.0) < 1e-12


@pytest.mark.parametrize(
    ("rule", "delta", "bias"),
    [
        (GaussianResidualTarget(), 0.1, 0.02233267),
        (ReflectionAboutMean(), 1.0, 0.20674369),
        (Lenient(0.9), 1.0, 0.032),
        (ReflectionAboutMean(of_target=True), -1.0, 0.20674369),
    ],
)
def test_what_it_certifies_is_a_bias(rule: Verifier, delta: float, bias: float) -> None:
    """The event chosen on some rows and counted on others: a bound below the true bias, and not far below. The bound
    fails with probability 1e-6.
    """
    pair = apart("pair", 2, abs(delta))
    if delta < 0:
        pair = Pair.of("turned", pair.target, pair.draft)
    first, fresh = (rows_of(rule, pair, [100_000], seed) for seed in (1, 2))
    branch = witnesses(first, {"branches"})[-1]
    (found,) = measure([(branch, fresh)], 1e-6)
    assert bias / 4 < found.lower <= bias
    right = measure([(branch, rows_of(Rejection(), pair, [100_000], 3))], 1e-6)
    assert right[0].lower == 0.0


def test_the_snippet_counts_the_event(capsys: pytest.CaptureFixture[str]) -> None:
    from verify.spaces.gaussian_example import SETTING

    for rule in (Function(GaussianResidualTarget()), Function(Lenient(0.8))):
        pair = apart("pair", 2, 0.5)
        branch = witnesses(rows_of(rule.rule, pair, [50_000], 1), {"branches"})[-1]
        snippet = f"{SETTING}{pair.source(torch.float64)}\n{branch.snippet}\nprint(event.double().mean().item())"
        with torch.random.fork_rng(devices=[]):
            exec(compile(snippet, "snippet", "exec"), {"fn": rule})
        shown = float(capsys.readouterr().out)
        counted = float(branch.event(rows_of(rule.rule, pair, [100_000], 2)).double().mean())
        assert abs(shown - counted) < 0.02  # five standard errors of 20,000 draws: 6e-7


def test_start_is_signed_and_nothing_where_densities_cross_elsewhere() -> None:
    one, far = torch.ones(2).double(), torch.tensor([3.0, 4.0]).double()
    pair = Pair.of("apart", Gaussian(0 * one, one), Gaussian(far, one))
    assert abs(pair.start) == pytest.approx(5.0)
    drawn = pair.draft[None][torch.zeros(4000, dtype=torch.long)].sample(GeneratorTape(0), "draft")
    place = torch.special.ndtri(pair.columns(drawn)[:, 0].clamp(1e-300, 1 - 1e-16))
    assert float(place.median()) == pytest.approx(pair.start, abs=0.2)
    assert Pair.of("equal", pair.draft, pair.draft).start == 0.0
    assert Pair.of("scales", pair.draft, Gaussian(far, 2 * one)).start == 0.0
    full = torch.linalg.cholesky(torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double())
    distance = torch.linalg.solve_triangular(full, far[:, None], upper=False).norm()
    same = Pair.of("one covariance", FullGaussian(0 * one, full), FullGaussian(far, full))
    assert abs(same.start) == pytest.approx(float(distance))


@pytest.mark.parametrize("dim", [1, 4, 16])
def test_the_pool_asks_it_wherever_means_differ(dim: int) -> None:
    for covariance in ("equal", "any"):
        starts = {pair.name: abs(pair.start) for pair in pairs(dim, covariance)}
        for name, distance in (("1 sigma apart", 1.0), ("0.1 sigma apart", 0.1), ("6 sigma apart", 6.0)):
            (found,) = (start for pair, start in starts.items() if name in pair and ("means " + name) in pair)
            assert found == pytest.approx(distance)
    verdict = judge_gaussian(Function(Reflection()), dim=1, budget=Budget(2048, 60.0))
    asked = [item.scenario for item in verdict.findings if item.check == "branches"]
    assert len(asked) == 5
