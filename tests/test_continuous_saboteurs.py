"""Planted defects of continuous tokens: each has the law and the bias it states, and is seen by the checks it names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import leggauss
from scipy import stats
from scipy.integrate import cumulative_trapezoid

from distributions.gaussian import Gaussian
from distributions.tape import GeneratorTape, RecordingTape, ReplayTape
from verify.cli import main
from verify.continuous_references import apart, continuous_panel, continuous_references, seen_by
from verify.decode import parents
from verify.planted_gaussian import PlantedReflection, PlantedThinning
from verify.records import Claim, Defect, Draft
from verify.saboteurs.coin_log_zero import CoinLogZero
from verify.saboteurs.gaussian_residual_padded import GaussianResidualPadded
from verify.saboteurs.gaussian_siblings_sorted import GaussianSiblingsSorted
from verify.saboteurs.inner_temperature import InnerTemperature
from verify.saboteurs.reflection_about_mean import ReflectionAboutMean
from verify.saboteurs.siblings_nearest_vector import SiblingsNearestVector
from verify.spaces.gaussian import Budget, judge_gaussian
from verify.spaces.gaussian_checks import pair_checks
from verify.spaces.gaussian_pairs import Pair
from verify.spaces.gaussian_rows import Rows
from verify.spaces.gaussian_rules import Function, continuous, rows_of, single
from verify.studies import continuous_kill_matrix
from verify.studies.kill_matrix import SEES
from verify.verifier import Verifier, catalog
from verify.verifiers.gaussian_k_seq import division, kept_mass
from verify.verifiers.gaussian_recursive_rejection import GaussianRecursiveRejection
from verify.verifiers.tolerance import Tolerance

torch.set_num_threads(1)

SABOTEURS = {name: kind for name, kind in catalog("saboteurs").items() if continuous(kind.claim)}
CONTROLS = {name: kind for name, kind in catalog("controls").items() if continuous(kind.claim)}
LOSSY = {name: kind for name, kind in catalog().items() if continuous(kind.claim) and not kind.claim.exact}
ROWS, ALPHA = 60_000, 1e-6

Array = np.ndarray
phi, Phi = stats.norm.pdf, stats.norm.cdf


def defect_of(name: str) -> Defect:
    found = SABOTEURS[name].defect  # type: ignore[attr-defined]
    assert isinstance(found, Defect)
    return found


@cache
def sample(name: str, letter: str) -> Rows:
    stated = defect_of(name)
    pair = continuous_references(stated.covariance)[letter]
    return rows_of(SABOTEURS[name](), pair, [ROWS], 11, stated.draft_length)


def places(rows: Rows) -> tuple[Array, Array]:
    """Along the line in the draft's deviations from its mean, and the radius across."""
    pair = rows.pair
    shift = (pair.target.mean - pair.draft.mean) / pair.draft.scale  # type: ignore[union-attr]
    white = (rows.emitted - pair.draft.mean) / pair.draft.scale  # type: ignore[union-attr]
    place = white @ (shift / shift.norm())
    across = white - place.unsqueeze(-1) * (shift / shift.norm())
    return place.numpy(), across.norm(dim=-1).numpy()


# --- what holds of all of them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SABOTEURS)
def test_a_saboteur_is_lossy_by_its_own_words_and_has_at_most_one_number(name: str) -> None:
    kind, stated = SABOTEURS[name], defect_of(name)
    assert not kind.claim.exact and kind.claim.reference and kind.claim.note and stated.bug and stated.caught_by
    assert len(dataclasses.fields(kind)) <= 1  # type: ignore[arg-type]
    assert max(stated.bias_a, stated.bias_b) > 1e-5


@pytest.mark.parametrize("name", SABOTEURS)
def test_the_stated_checks_see_it(name: str) -> None:
    """At level 1e-6 each; those stated have p-values far below."""
    found = seen_by(continuous_panel(SABOTEURS[name](), 32_768), ALPHA)
    assert set(defect_of(name).caught_by) <= set(found)


class WholeThinning(PlantedThinning):
    claim: ClassVar[Claim] = Claim(exact=True, reference="a test", laws="gaussian")


class WholeReflection(PlantedReflection):
    claim: ClassVar[Claim] = Claim(exact=True, reference="a test", laws="gaussian")


@pytest.mark.parametrize("whole", [WholeThinning(), WholeReflection(), SiblingsNearestVector(by_place=True)])
def test_without_a_defect_nothing_is_seen(whole: Verifier) -> None:
    """False alarm 1e-6 for each of some eight checks."""
    assert seen_by(continuous_panel(whole, 16_384, seed=2), ALPHA) == ()


EVERY = {**SABOTEURS, **CONTROLS, **LOSSY}


@pytest.mark.parametrize("name", EVERY)
def test_universal_laws(name: str) -> None:
    """Lengths, the prefix kept, the account of ``log_accept`` (5 standard errors: 6e-7), and replay bit for bit."""
    rule: Any = EVERY[name]()
    rows, nodes = 20_000, 2
    pair = continuous_references()["A"]
    index = torch.zeros(rows, nodes + 1, dtype=torch.long)
    law, target = pair.draft[None][index[:, :nodes]], pair.target[None][index]
    drafted = Draft(law.sample(GeneratorTape(1), "draft"), law, parents(rule, nodes))
    tape = RecordingTape(GeneratorTape(2))
    made, again = rule.verify(drafted, target, tape), None
    again = rule.verify(drafted, target, ReplayTape(tape.draws))
    assert torch.equal(made.value, again.value) and torch.equal(made.length, again.length)
    assert made.value.shape == (rows, nodes + 1, 2) and torch.equal(made.length, made.kept.sum(1) + 1)
    if single(rule):
        assert not bool((made.kept[:, 1] & ~made.kept[:, 0]).any())
        chance = made.log_accept[:, 0].exp()
        noise = float((chance * (1 - chance)).sum().sqrt()) / rows
        assert abs(float(made.kept[:, 0].double().mean() - chance.mean())) <= 5 * noise + 1e-12
    assert bool((made.log_accept <= 1e-12).all())


def test_they_are_listed_and_left_out_of_what_is_enumerated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--saboteurs"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    for name in SABOTEURS:
        assert f"{defect_of(name).bias_a:.3g}" in lines[name] and defect_of(name).caught_by[0] in lines[name]


# --- the laws along the line, from formulas -----------------------------------------------------------------------


def variation(delta: float) -> float:
    return float(2 * Phi(delta / 2) - 1)


def left(s: Array, delta: float) -> Array:
    """(p - q)+."""
    return np.clip(phi(s - delta) - phi(s), 0, None)


def shared(s: Array, delta: float) -> Array:
    return np.minimum(phi(s), phi(s - delta))


def ratio(s: Array, delta: float) -> Array:
    found: Array = np.exp(delta * (s - delta / 2))
    return found


def kept_and_residual(s: Array, delta: float, accept: Array) -> Array:
    kept = phi(s) * np.clip(accept, 0, 1)
    return kept + (1 - np.trapezoid(kept, s)) * left(s, delta) / variation(delta)


def from_draft(s: Array, delta: float) -> Array:
    law = left(s, delta) / ratio(s, delta)
    return shared(s, delta) + variation(delta) * law / np.trapezoid(law, s)


def sorted_siblings(s: Array, delta: float, count: int = 4) -> Array:
    """Order statistics: rank k + 1 is at s and kept, the k above it were refused, the others lie below."""
    taken, mass = [0.0], [1.0]
    for _ in range(count):
        taken.append(taken[-1] + mass[-1])
        end = math.log(taken[-1]) / delta
        mass.append(Phi(delta / 2 - end) - taken[-1] * Phi(-delta / 2 - end))
    refused, law = np.ones_like(s), np.zeros_like(s)
    for k in range(count):
        accept = np.clip((ratio(s, delta) - taken[k]) / mass[k], 0, 1)
        law += math.perm(count, k + 1) * refused * phi(s) * accept * below(s, count - 1 - k)
        inside = cumulative_trapezoid(refused * (1 - accept) * phi(s), s, initial=0)
        refused = inside[-1] - inside
    rest = np.clip(phi(s - delta) - taken[-1] * phi(s), 0, None)
    return law + math.factorial(count) * refused[0] * rest / np.trapezoid(rest, s)


def below(s: Array, count: int) -> Array:
    """The probability that ``count`` unordered draws lie below s; perm(K, k + 1) orders the others."""
    return Phi(s) ** count


LINE: dict[str, Callable[[Array, float], Array]] = {
    "gaussian_always_accept": lambda s, delta: phi(s),
    "gaussian_residual_target": lambda s, delta: shared(s, delta) + variation(delta) * phi(s - delta),
    "gaussian_residual_from_draft": from_draft,
    "inner_temperature": lambda s, delta: kept_and_residual(s, delta, ratio(s, delta) ** (1 / 42**2)),
    "coin_log_zero": lambda s, delta: kept_and_residual(s, delta, np.ceil(np.minimum(1, ratio(s, delta)) * 256) / 256),
    "reflection_about_mean": lambda s, delta: shared(s, delta) + left(s + delta, delta),
    "gaussian_siblings_sorted": sorted_siblings,
}
DELTA = {"A": 1.0, "B": 0.1}


def grid(delta: float) -> Array:
    return np.linspace(-12, 13 + delta, 400_001)


def bias(law: Array, s: Array, delta: float) -> float:
    return float(np.trapezoid(np.abs(law - phi(s - delta)), s)) / 2


def follows(values: Array, points: Array, density: Array) -> float:
    """The p-value of a chi-square test on 40 cells of equal mass of a density on a grid."""
    cumulative = cumulative_trapezoid(density, points, initial=0)
    ends = np.interp(np.arange(1, 40) / 40 * cumulative[-1], cumulative, points)
    counts = np.bincount(np.searchsorted(ends, values), minlength=40)
    return float(stats.chisquare(counts).pvalue)


@pytest.mark.parametrize("letter", DELTA)
@pytest.mark.parametrize("name", LINE)
def test_along_the_line_law_and_bias_are_those_of_the_formula(name: str, letter: str) -> None:
    """60,000 rows; false alarm 1e-6 for each of the two tests."""
    delta = DELTA[letter]
    s = grid(delta)
    law = LINE[name](s, delta)
    assert np.trapezoid(law, s) == pytest.approx(1, abs=1e-8)
    stated = {"A": defect_of(name).bias_a, "B": defect_of(name).bias_b}[letter]
    assert bias(law, s, delta) == pytest.approx(stated, abs=1e-6)
    place, across = places(sample(name, letter))
    assert follows(place, s, law) > ALPHA
    assert stats.kstest(across, stats.chi(sample(name, letter).pair.dim - 1).cdf).pvalue > ALPHA
    if stated > 0.02:  # it is the defect that is seen: the target's law is refused
        assert follows(place, s, phi(s - delta)) < ALPHA


def test_notes_and_formulas_agree() -> None:
    """Figures at means 1 and 2 apart that others found by simulation or integration, and limits."""
    assert 0.150 == pytest.approx(bias(LINE["gaussian_residual_target"](grid(1), 1), grid(1), 1), abs=5e-4)
    assert 0.207 == pytest.approx(defect_of("reflection_about_mean").bias_a, abs=5e-4)
    assert 0.566 == pytest.approx(bias(LINE["reflection_about_mean"](grid(2), 2), grid(2), 2), abs=5e-4)
    halved = kept_and_residual(grid(1), 1, ratio(grid(1), 1) ** 0.25)
    assert 0.237 == pytest.approx(bias(halved, grid(1), 1), abs=5e-4)
    assert 0.3825 == pytest.approx(defect_of("inner_temperature").bias_a, abs=5e-5)
    # The largest of four siblings: Kolmogorov-Smirnov distance 0.153.
    gap = cumulative_trapezoid(sorted_siblings(grid(1), 1) - phi(grid(1) - 1), grid(1))
    assert 0.153 == pytest.approx(float(np.abs(gap).max()), abs=5e-4)


def test_excess_acceptance_is_the_whole_bias_of_a_generous_coin() -> None:
    """Lemma L2 with equality, in closed form: sum over k of P(ratio > k / 256) / 256, less 1 - TV; and the tempered
    acceptance Phi(-delta / 2) + exp(b^2 / 2 - b delta / 2) Phi(delta / 2 - b), b = delta / T^2.
    """
    for letter, delta in DELTA.items():
        level = np.log(np.maximum(np.arange(256), 1e-300) / 256)
        coarse = Phi(-(delta / 2 + level / delta)).mean() - (1 - variation(delta))
        assert getattr(defect_of("coin_log_zero"), f"bias_{letter.lower()}") == pytest.approx(coarse, abs=1e-8)
        slope = delta / 42**2
        warm = Phi(-delta / 2) + math.exp(slope**2 / 2 - slope * delta / 2) * Phi(delta / 2 - slope)
        excess = warm - (1 - variation(delta))
        assert getattr(defect_of("inner_temperature"), f"bias_{letter.lower()}") == pytest.approx(excess, abs=1e-8)


def test_reflection_about_the_targets_mean_is_as_wrong() -> None:
    """The residual is moved to the other side. False alarm 1e-6."""
    pair, s = continuous_references()["A"], grid(1)
    law = shared(s, 1) + left(s - 1, 1)
    assert bias(law, s, 1) == pytest.approx(defect_of("reflection_about_mean").bias_a, abs=1e-6)
    place, _ = places(rows_of(ReflectionAboutMean(of_target=True), pair, [ROWS], 5))
    assert follows(place, s, law) > ALPHA


def test_order_is_all_that_is_wrong_with_sorted_siblings() -> None:
    """One sibling, or siblings in drawing order: no defect. False alarm 1e-6 each."""
    pair, s = continuous_references()["A"], grid(1)
    for rule, count in ((GaussianSiblingsSorted(), 1), (GaussianRecursiveRejection(), 4)):
        place, _ = places(rows_of(rule, pair, [ROWS], 5, count))
        assert follows(place, s, phi(s - 1)) > ALPHA


# --- and where a line does not tell all ---------------------------------------------------------------------------


def test_padding_is_an_atom_of_the_stated_mass() -> None:
    """TV (1 - TV)^tries; 5 standard errors: 6e-7. The largest is near TV = 1 / (tries + 1)."""
    for letter, delta in DELTA.items():
        stated = getattr(defect_of("gaussian_residual_padded"), f"bias_{letter.lower()}")
        assert stated == pytest.approx(variation(delta) * (1 - variation(delta)) ** 100, rel=1e-3)
        share = float((sample("gaussian_residual_padded", letter).emitted == 0).all(-1).double().mean())
        assert abs(share - stated) < 5 * math.sqrt(stated / ROWS) + 1e-12
    rows = rows_of(GaussianResidualPadded(4), continuous_references()["A"], [ROWS], 3)
    wanted = variation(1) * (1 - variation(1)) ** 4
    assert abs(float((rows.emitted == 0).all(-1).double().mean()) - wanted) < 5 * math.sqrt(wanted / ROWS)


def test_without_the_part_across_the_line_is_right_and_the_plane_is_not() -> None:
    """Mass TV on a line, which has none under the target. 5 standard errors: 6e-7; and a KS test at 1e-6."""
    for letter, delta in DELTA.items():
        rows = sample("reflection_without_across", letter)
        stated = getattr(defect_of("reflection_without_across"), f"bias_{letter.lower()}")
        assert stated == pytest.approx(variation(delta), abs=1e-8)
        place, across = places(rows)
        assert stats.kstest(place, stats.norm(delta).cdf).pvalue > ALPHA
        assert abs(float((across < 1e-12).mean()) - stated) < 5 * math.sqrt(stated * (1 - stated) / ROWS)
    on_the_line = judge_gaussian(Function(SABOTEURS["reflection_without_across"]()), budget=Budget(16_384, 60.0))
    assert on_the_line.status == "lossless", str(on_the_line)  # one dimension has nothing across


@pytest.mark.parametrize(("letter", "dim", "scales"), [("A", 16, (1.0, 0.95)), ("B", 2, (0.8, 1.0))])
def test_without_volumes_the_radius_tells(letter: str, dim: int, scales: tuple[float, float]) -> None:
    """min(q, c p) + (1 - kept)(p - q)+ / TV as densities of the radius. False alarm 1e-6."""
    points = np.linspace(1e-9, 12, 400_001)
    draft, target = (stats.chi(dim, scale=scale).pdf(points) for scale in scales)
    volume = (scales[1] / scales[0]) ** dim
    kept = np.minimum(draft, volume * target)
    residual = np.clip(target - draft, 0, None)
    law = kept + (1 - np.trapezoid(kept, points)) * residual / np.trapezoid(residual, points)
    stated = getattr(defect_of("ratio_without_volume"), f"bias_{letter.lower()}")
    assert np.trapezoid(np.abs(law - target), points) / 2 == pytest.approx(stated, abs=1e-6)
    rows = sample("ratio_without_volume", letter)
    assert follows(rows.emitted.norm(dim=-1).numpy(), points, law) > ALPHA
    assert follows(rows.emitted.norm(dim=-1).numpy(), points, target) < ALPHA
    overlap = np.minimum(draft, target)
    kept_share = float(rows.accepted.double().mean())
    if letter == "A":  # half of what it may keep: acceptance alone would not accuse it
        assert kept_share == pytest.approx(0.44, abs=0.01) and np.trapezoid(overlap, points) == pytest.approx(
            0.886, abs=1e-3
        )
    else:
        assert kept_share == 1.0


@cache
def nearest_across(delta: float, dim: int, points: int = 80) -> tuple[float, Array, Array]:
    """The bias of SiblingsNearestVector of two siblings, and the density of the radius across, on a grid.

    Refused siblings have places of density f = phi (1 - accept) / (1 - beta); the new place is y. Of radii r_1, r_2,
    that of the nearer one is kept: density 2 chi(r) P((s_2 - y)^2 + r_2^2 > (s_1 - y)^2 + r^2).
    """
    apart_by = torch.tensor([delta]).double()
    rho = float(division(apart_by, 2))
    beta = float(kept_mass(apart_by, torch.tensor([rho]).double()))
    end = delta / 2 + math.log(rho) / delta

    def nodes(low: float, high: float) -> tuple[Array, Array]:
        place, weight = leggauss(points)
        return (high - low) / 2 * place + (low + high) / 2, (high - low) / 2 * weight

    (s, of_s), (y, of_y), (r, of_r) = nodes(max(end - 12, -12), end), nodes(end, end + 9), nodes(0, 8)
    f = phi(s) * (1 - np.minimum(1, ratio(s, delta) / rho)) / (1 - beta) * of_s
    g = (phi(y - delta) - rho * phi(y)) * of_y
    g, chi = g / g.sum(), stats.chi.pdf(r, dim - 1)
    distance, across = 0.0, np.zeros_like(r)
    for place, weight in zip(y, g, strict=True):
        apart_squared = (s - place)[:, None] ** 2 + r[None] ** 2
        levels = np.linspace(0, apart_squared.max(), 1500)
        beyond = (stats.chi2.sf(levels[:, None] - (s - place)[None] ** 2, dim - 1) * f[None]).sum(1)
        law = 2 * chi * (f[:, None] * np.interp(apart_squared, levels, beyond)).sum(0)
        distance += weight * (np.abs(law - chi) * of_r).sum() / 2
        across += weight * law
    refused = (1 - beta) ** 2
    return refused * distance, r, (1 - refused) * chi + refused * across


@pytest.mark.slow
@pytest.mark.parametrize(("letter", "dim"), [("A", 2), ("B", 4)])
def test_the_nearest_vector_has_too_little_across(letter: str, dim: int) -> None:
    """False alarm 1e-6 for each of three tests."""
    found, points, law = nearest_across(DELTA[letter], dim)
    stated = getattr(defect_of("siblings_nearest_vector"), f"bias_{letter.lower()}")
    assert found == pytest.approx(stated, abs=2e-5)
    dense = np.linspace(points[0], points[-1], 20_001)
    density = np.interp(dense, points, law)
    pair = continuous_references()[letter]
    place, across = places(rows_of(SiblingsNearestVector(), pair, [4 * ROWS], 7, 2))
    assert follows(across, dense, density) > ALPHA
    assert stats.kstest(place, stats.norm(DELTA[letter]).cdf).pvalue > ALPHA
    if letter == "A":
        assert stats.kstest(across, stats.chi(dim - 1).cdf).pvalue < ALPHA
    _, right = places(rows_of(SiblingsNearestVector(by_place=True), pair, [4 * ROWS], 7, 2))
    assert stats.kstest(right, stats.chi(dim - 1).cdf).pvalue > ALPHA  # the nearest place may lend its part across


def test_every_saboteur_has_its_formula_here() -> None:
    elsewhere = {
        "gaussian_residual_padded",
        "reflection_without_across",
        "ratio_without_volume",
        "siblings_nearest_vector",
    }
    assert set(SABOTEURS) == set(LINE) | elsewhere


# --- tolerance, a published rule that is lossy on purpose ---------------------------------------------------------


@pytest.mark.parametrize("tolerance", [0.3, 1.0, 3.0])
def test_tolerance_has_the_density_of_its_formula(tolerance: float) -> None:
    """On the line: q P(|y - z| <= t) + p P(|x - z| > t). False alarm 1e-6 each."""
    delta, s = 1.0, grid(1)
    near_target = Phi(s + tolerance - delta) - Phi(s - tolerance - delta)
    near_draft = Phi(s + tolerance) - Phi(s - tolerance)
    law = phi(s) * near_target + phi(s - delta) * (1 - near_draft)
    rows = rows_of(Tolerance(tolerance), apart("the line", 1, delta), [ROWS], 9)
    place, _ = places(rows)
    assert follows(place, s, law) > ALPHA
    kept = float(rows.accepted.double().mean())
    wanted = float(stats.norm(1, math.sqrt(2)).cdf(tolerance) - stats.norm(1, math.sqrt(2)).cdf(-tolerance))
    assert abs(kept - wanted) < 5 * math.sqrt(wanted * (1 - wanted) / ROWS)  # 6e-7
    if tolerance >= 1:
        assert follows(place, s, phi(s - 1)) < ALPHA and bias(law, s, 1) > 0.02


def test_tolerance_in_its_limits() -> None:
    """0 is the target's own draw, infinity the draft; in units of the target's deviations."""
    pair = continuous_references()["A"]
    assert not bool(rows_of(Tolerance(0.0), pair, [1000], 1).accepted.any())
    assert bool(rows_of(Tolerance(math.inf), pair, [1000], 1).accepted.all())
    wide = [
        Pair.of("wide", Gaussian(law.mean * 5, law.scale * 5), Gaussian(law.mean * 5, law.scale * 5))
        for law in (pair.draft,)
    ]
    kept = [float(rows_of(Tolerance(1.0), item, [4000], 1).accepted.double().mean()) for item in wide]
    one = Pair.of("one", pair.draft, pair.draft)
    assert kept[0] == pytest.approx(float(rows_of(Tolerance(1.0), one, [4000], 1).accepted.double().mean()), abs=1e-12)
    with pytest.raises(ValueError, match="tolerance"):
        Tolerance(-1.0)


# --- as functions, at 1, 4 and 16 dimensions ----------------------------------------------------------------------

CHAINS = [name for name in SABOTEURS if single(SABOTEURS[name]())]
QUICK = {("reflection_without_across", 4)}


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        pytest.param(name, dim, marks=() if (name, dim) in QUICK else pytest.mark.slow)
        for name in CHAINS
        for dim in (1, 4, 16)
        if (name, dim) != ("reflection_without_across", 1)
    ],
)
def test_a_defect_is_found_in_a_function_and_named(name: str, dim: int) -> None:
    covariance = "any" if defect_of(name).covariance == "unequal" else "equal"
    budget = Budget(16_384, 60.0) if (name, dim) in QUICK else "quick"
    for seed in range(2):  # the right name is withheld once in 1,000 times: of 33 here, from some seed of two
        verdict = judge_gaussian(Function(SABOTEURS[name]()), dim=dim, covariance=covariance, budget=budget, seed=seed)
        assert verdict.status == "lossy" and verdict.bias_lower > 0, str(verdict)
        if name in verdict.diagnosis:
            return
    raise AssertionError(str(verdict))


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("dim", [1, pytest.param(4, marks=pytest.mark.slow), pytest.param(16, marks=pytest.mark.slow)])
def test_tiny_separations_do_not_hide_it(name: str, dim: int) -> None:
    """Means 0.1 apart, 200,000 rows: all that a bias above 0.002 needs; smaller ones have their own tests."""
    stated = defect_of(name)
    if stated.covariance == "unequal" or stated.bias_b < 0.002 or name == "reflection_without_across" and dim == 1:
        return
    rows = rows_of(SABOTEURS[name](), apart("near", dim, 0.1), [25_000] * 8, 5)
    assert min(item.p_value or 0.0 for item in pair_checks(rows)) < ALPHA


# --- controls -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", ["equal", pytest.param("any", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dim", [1, 4, pytest.param(16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_passes(name: str, dim: int, covariance: str) -> None:
    """A false alarm has probability 1e-6."""
    verdict = judge_gaussian(Function(CONTROLS[name]()), dim=dim, covariance=covariance, budget=Budget(16_384, 60.0))
    assert verdict.status == "lossless", str(verdict)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_with_a_small_defect_is_accused(name: str) -> None:
    """Everything moved by a twentieth of a deviation: KS distance 0.02."""
    rows = rows_of(CONTROLS[name](), continuous_references()["A"], [ROWS], 3)
    spoiled = dataclasses.replace(rows, emitted=rows.emitted + 0.05)
    assert min(item.p_value or 0.0 for item in pair_checks(spoiled)) < ALPHA


def test_fresh_noise_costs_acceptance_and_nothing_else() -> None:
    """Shared: 2 Phi(-delta / 2 sqrt(1 - a)), in any dimension. Fresh: the mean of 2 Phi(-D / 2), D^2 (1 - a) / 2 a a
    noncentral chi-square, for |delta e + sqrt(a) (w' - w)| / sqrt(1 - a). 5 standard errors: 6e-7.
    """
    kind: Any = CONTROLS["fresh_noise_alignment"]
    share, delta = 0.9, 0.5
    square = np.linspace(0, 80, 400_001)[1:] ** 2 / 80
    for dim in (2, 8):
        pair = apart("near", dim, delta)
        distance = np.sqrt(2 * share / (1 - share) * square)
        law = stats.ncx2.pdf(square, dim, delta**2 / (2 * share))
        wanted = {
            True: float(2 * Phi(-delta / (2 * math.sqrt(1 - share)))),
            False: float(np.trapezoid(2 * Phi(-distance / 2) * law, square)),
        }
        assert wanted[False] < wanted[True] / 3 < pair.overlap / 3
        for shared_noise, expected in wanted.items():
            kept = float(rows_of(kind(share, shared_noise), pair, [ROWS], 3).accepted.double().mean())
            assert abs(kept - expected) < 5 * math.sqrt(expected * (1 - expected) / ROWS) + 1e-5


# --- numbers out of range, and the study --------------------------------------------------------------------------


def test_numbers_out_of_range_are_refused() -> None:
    for zeros in (0.0, -0.1, 1.5):
        with pytest.raises(ValueError, match="zeros"):
            CoinLogZero(zeros)
    with pytest.raises(ValueError, match="covariance"):
        continuous_references("full")
    pair = continuous_references()["A"]
    one = rows_of(InnerTemperature(1.0), pair, [ROWS], 3)
    assert follows(places(one)[0], grid(1), phi(grid(1) - 1)) > ALPHA  # at temperature 1 there is no defect


@pytest.mark.slow
def test_the_study_says_that_all_are_seen_and_none_is_accused() -> None:
    study = continuous_kill_matrix.run("quick")
    assert "Each defect is seen by at least one check. No check accuses a control." in study.text


def test_the_study_says_what_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 rows show little, but some."""
    monkeypatch.setattr(continuous_kill_matrix, "ROWS", {"quick": 256})
    study = continuous_kill_matrix.run("quick")
    assert "No check sees coin_log_zero" in study.text and "No check accuses a control." in study.text
    assert [row["saboteur"] for row in study.tables["Saboteur by check"]] == list(SABOTEURS)
    assert {row["saboteur"]: row["bias on A"] for row in study.tables["Exact biases"]} == {
        name: defect_of(name).bias_a for name in SABOTEURS
    }
    matrix = {row["saboteur"]: row for row in study.tables["Saboteur by check"]}
    assert matrix["gaussian_always_accept"]["excess_acceptance"] == SEES
