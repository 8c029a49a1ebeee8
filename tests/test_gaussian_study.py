"""The study of Gaussian rules: its quadrature, coupling and samples find planted biases, and none in exact rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor

from distributions.law import Law
from distributions.normal import normal_cdf
from distributions.tape import Tape
from verify.gaussian.frame import Frame, first_rejected
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude, log_ratio
from verify.studies import gaussian_rules
from verify.studies.gaussian_rules.cells import cumulative, integrals, inverse, variation
from verify.studies.gaussian_rules.decisions import NotOnTheLine
from verify.studies.gaussian_rules.lift import clopper_pearson, run
from verify.studies.gaussian_rules.line import line_law
from verify.studies.gaussian_rules.subjects import ALPHA, Subject, find, subjects
from verify.verifier import catalog
from verify.verifiers.gaussian_block import GaussianBlock
from verify.verifiers.gaussian_k_seq import GaussianKSeq
from verify.verifiers.gaussian_recursive_rejection import GaussianRecursiveRejection
from verify.verifiers.lenient import Lenient
from verify.verifiers.poisson_race import PoissonRace
from verify.verifiers.reflection import Reflection
from verify.verifiers.rejection import Rejection
from verify.verifiers.residual_coupling import ResidualCoupling
from verify.verifiers.thorisson import Thorisson
from verify.verifiers.tolerance import Tolerance

torch.set_num_threads(1)

PLANTED = Claim(exact=True, reference="a planted bug", laws="gaussian")
Density = Callable[[float], float]


@dataclass(frozen=True)
class Mirrors:
    """Reflection in the plane at ``share`` of the way to the target's mean, half-way where it is exact; ``across``:
    whether what lies across the line is kept.
    """

    share: float = 1.0
    across: bool = True
    claim: ClassVar[Claim] = PLANTED

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        frame = Frame.of("bug", target[:, :-1], draft.law)
        place = frame.place(draft.value)
        log_accept = frame.log_ratio(place).clamp(max=0)
        accept = tape.coin("accept", log_accept.exp())
        where = first_rejected(accept)
        start = draft.value[where] if self.across else draft.law[where].mean  # type: ignore[attr-defined]
        moved = frame[where].move(start, 2 * self.share * frame.distance[where] - place[where])
        return conclude(draft, target, accept, log_accept, tape, lambda *_: moved)


@dataclass(frozen=True)
class Draws:
    """Rejection whose replacement is the target's own draw, or thinned ``tries`` times and then the target's mean."""

    tries: int = 0
    claim: ClassVar[Claim] = PLANTED

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        log_accept = log_ratio(draft.value, target[:, :-1], draft.law).clamp(max=0)

        def replace(law: Law, prior: Law, some: Tape, site: str) -> Tensor:
            if not self.tries:
                return law.sample(some, site)
            value = law.mean.clone()  # type: ignore[attr-defined]
            left = torch.arange(len(value))
            for _ in range(self.tries):
                proposal = law[left].sample(some[left], f"{site}.proposal")
                chance = -torch.expm1(-log_ratio(proposal, law[left], prior[left]).clamp(min=0))
                kept = some[left].coin(f"{site}.keep", chance)
                value[left[kept]] = proposal[kept]
                left = left[~kept]
            return value

        return conclude(draft, target, tape.coin("accept", log_accept.exp()), log_accept, tape, replace)


def half_integral(gap: Density, distance: float, *marks: float) -> float:
    """Half the integral of |gap|, adaptively, between places where it is smooth."""
    ends = [-12.0, *sorted(marks), distance + 12]
    pairs = zip(ends[:-1], ends[1:], strict=True)
    return sum(integrate.quad(lambda s: abs(gap(s)) / 2, *pair, epsabs=1e-13, limit=200)[0] for pair in pairs)


# --- the numbers ------------------------------------------------------------------------------------------------------


def test_integrals_corner_kinks_and_jumps() -> None:
    ends = torch.tensor([-3.0, -1.0036, 0.2, 2.0], dtype=torch.float64)
    kink, jump = 0.0, 1.234567

    def density(place: Tensor, cell: Tensor) -> Tensor:
        assert bool((place >= ends[cell] - 1e-12).all()) and bool((place <= ends[cell + 1] + 1e-12).all())
        return (place - kink).clamp(min=0) + (place > jump).double()

    found = integrals(density, ends[:-1], ends[1:])
    assert np.allclose(found.numpy(), [0.0, 0.02, (4 - 0.04) / 2 + 2 - jump], rtol=0, atol=1e-10)


def test_a_kink_beside_an_end_is_seen() -> None:
    """Gauss nodes would all lie on one side of it, in the whole cell and in both halves."""
    ends = torch.tensor([-2.0, -1.0], dtype=torch.float64)
    kink = -1.0036
    found = integrals(lambda place, _: (place - kink).clamp(min=0), ends[:1], ends[1:])
    assert float(found) == pytest.approx((-1.0 - kink) ** 2 / 2, abs=1e-13)


def test_cumulative_in_any_order_and_inverse() -> None:
    place = torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64)
    found = cumulative(lambda x: torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi), place, -10.0)
    assert torch.allclose(found, normal_cdf(place), rtol=0, atol=1e-14)
    low, high = torch.full_like(place, -10.0), torch.full_like(place, 10.0)
    assert torch.allclose(inverse(normal_cdf, found, low, high), place, rtol=0, atol=1e-12)
    assert torch.allclose(inverse(lambda x: normal_cdf(-x), found, low, high), -place, rtol=0, atol=1e-12)


@pytest.mark.parametrize("distance", [1e-3, 0.7, 4.0])
def test_variation_is_total_variation(distance: float) -> None:
    """2 Phi(delta / 2) - 1 of two normals; and an atom of mass 1/10 counts 1/10."""
    found = variation(lambda x: normal_cdf(x) - normal_cdf(x - distance), -10.0, distance + 10, 0.5)
    assert found == pytest.approx(2 * norm.cdf(distance / 2) - 1, abs=1e-9)
    atom = variation(lambda x: 0.1 * ((x > 0.2).double() - normal_cdf(x)), -10.0, 10.0, 0.5)
    assert atom == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(("count", "rows"), [(0, 1000), (3, 1000), (40, 50), (50, 50)])
def test_the_bound_is_clopper_and_pearson(count: int, rows: int) -> None:
    high = proportion_confint(count, rows, alpha=2 * ALPHA, method="beta")[1]
    assert clopper_pearson(count, rows, ALPHA) == pytest.approx(float(high), rel=1e-9)
    if count == 0:
        assert clopper_pearson(0, rows, ALPHA) <= math.log(1 / ALPHA) / rows


# --- exact rules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "nodes", "how"),
    [
        (Reflection(), 1, "moved"),
        (Mirrors(0.5), 1, "moved"),
        (ResidualCoupling(), 1, "inverted"),
        (GaussianBlock(), 1, "inverted"),
        (GaussianRecursiveRejection(), 2, "inverted"),
        pytest.param(GaussianKSeq(), 2, "inverted", marks=pytest.mark.slow),
        (Rejection(), 1, "thinned"),
        (Thorisson(0.7), 1, "thinned"),
        (PoissonRace(), 1, "raced"),
    ],
)
def test_exact_rules_are_exact_on_the_line(rule: Any, nodes: int, how: str) -> None:
    found = line_law(rule, nodes, 0.8)
    assert found.tv < 1e-12 and found.how == how
    if hasattr(rule, "acceptance"):
        many = (nodes,) if hasattr(rule, "parent") else ()
        assert found.kept == pytest.approx(
            float(rule.acceptance(torch.tensor(0.8, dtype=torch.float64), *many)), abs=1e-13
        )


@pytest.mark.slow
@pytest.mark.parametrize("distance", [0.1, 2.0])
def test_a_block_of_two_is_exact_on_the_line(distance: float) -> None:
    found = line_law(GaussianBlock(), 2, distance)
    assert found.tv < 1e-10 and found.kept == pytest.approx(2 * norm.cdf(-distance / 2), abs=1e-10)


@pytest.mark.parametrize("rule", [Reflection(), GaussianRecursiveRejection(), Rejection(), GaussianBlock()])
def test_exact_rules_are_lifted_and_unbiased(rule: Any) -> None:
    """Samples at level 1e-6 and acceptance at 6 standard errors: false alarm some 1e-6 a case."""
    found = find(Subject("a rule", rule, 2 if hasattr(rule, "parent") else 1), 1.0, {1: 500, 5: 2_000})
    assert not found.biased and found.finding == "none" and found.mismatches == {1: 0, 5: 0}
    assert found.bound(5) < 1e-10 - math.log(ALPHA) / 2_000
    assert found.z is not None and abs(found.z) < 5


def test_draws_of_a_residual_have_the_moments_of_the_lemma() -> None:
    """Mean 1 and mean square (2 - TV) / TV (L8); (1 + m) / (1 - m) under a share, m what is kept."""
    distance = 0.5
    rejection = find(Subject("rejection", Rejection(), 1), distance, {1: 10}).draws()
    gap = 2 * norm.cdf(distance / 2) - 1
    assert rejection == pytest.approx((1.0, (2 - gap) / gap), rel=1e-10)
    shared = find(Subject("thorisson", Thorisson(0.8), 1), distance, {1: 10})
    assert shared.line is not None
    assert shared.draws() == pytest.approx((1.0, (1 + shared.line.kept) / (1 - shared.line.kept)), rel=1e-10)


# --- planted biases ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [0.1, 1.0, 3.0])
def test_a_wrong_plane_has_the_bias_of_its_density(distance: float) -> None:
    """What is refused at s goes to 2 delta - s: min(q, p)(z) + (q - p)+(2 delta - z), against p."""

    def gap(z: float) -> float:
        away = 2 * distance - z
        lost = max(norm.pdf(away) - norm.pdf(away - distance), 0.0)
        return float(min(norm.pdf(z), norm.pdf(z - distance)) + lost - norm.pdf(z - distance))

    wanted = half_integral(gap, distance, distance / 2, 1.5 * distance, distance)
    found = find(Subject("planted", Mirrors(), 1), distance, {1: 100})
    assert found.biased and found.line is not None
    assert found.line.tv == pytest.approx(wanted, abs=1e-8)


@pytest.mark.parametrize("distance", [0.1, 1.0, 3.0])
def test_a_residual_that_is_the_target_has_its_known_bias(distance: float) -> None:
    """min(q, p) + TV p, against p."""
    missing = 2 * norm.cdf(distance / 2) - 1

    def gap(z: float) -> float:
        return float(min(norm.pdf(z), norm.pdf(z - distance)) - (1 - missing) * norm.pdf(z - distance))

    crossing = distance / 2 + math.log(1 - missing) / distance
    wanted = half_integral(gap, distance, distance / 2, crossing)
    found = find(Subject("planted", Draws(), 1), distance, {1: 100})
    assert found.biased and found.line is not None and found.line.how == "drawn"
    assert found.line.tv == pytest.approx(wanted, abs=1e-8)


@pytest.mark.parametrize("distance", [0.1, 1.0, 8.0])
def test_a_lenience_of_99_per_cent_is_seen(distance: float) -> None:
    found = find(Subject("lenient", Lenient(0.99), 1), distance, {1: 100})
    assert found.biased and found.line is not None and found.formula is not None and found.formula > 0
    assert found.line.tv == pytest.approx(found.formula, abs=1e-9)


def test_a_thinning_that_gives_up_has_no_quadrature() -> None:
    """After three tries the mean: an atom, which samples see."""
    with pytest.raises(NotOnTheLine, match="stops drawing|another law"):
        line_law(Draws(3), 1, 0.5)
    found = find(Subject("planted", Draws(3), 1), 0.5, {1: 5_000})
    assert found.line is None and found.biased


def test_what_is_lost_across_the_line_is_seen_off_it_only() -> None:
    found = find(Subject("planted", Mirrors(0.5, across=False), 1), 2.0, {1: 1_000, 4: 2_000})
    assert found.line is not None and found.line.tv < 1e-12 and found.mismatches[1] == 0
    refused = 2 * norm.cdf(1.0) - 1
    assert abs(found.mismatches[4] / 2_000 - refused) < 6 * math.sqrt(refused * (1 - refused) / 2_000)  # 2e-9
    assert found.biased and found.bound(4) > refused - 0.1
    assert found.evidence.endswith("on the line only")


def test_a_formula_for_tolerance_is_its_bias_by_samples() -> None:
    """No exact p-value here: the formula bounds every distance of distribution functions, up to 1e-6 by chance."""
    found = find(Subject("tolerance", Tolerance(1.5), 1), 2.0, {1: 20_000})
    assert found.line is None and found.formula is not None and found.formula > 0.03
    assert found.gap[1] < found.formula + math.sqrt(math.log(2 / 1e-6) / 40_000)


# --- the study --------------------------------------------------------------------------------------------------------


def test_the_rules_are_the_catalogue_that_serves_gaussians() -> None:
    names = {item.name for item in subjects()}
    assert names == {name for name, kind in catalog().items() if kind.claim.laws in ("gaussian", "any")}
    assert {"reflection", "rejection", "lenient", "gaussian_transport"} <= names and "block" not in names
    assert {item.drafts for item in subjects() if item.name == "gaussian_block"} == {1, 2}
    assert {item.drafts for item in subjects((3,)) if item.name == "gaussian_k_seq"} == {3}


def test_the_lift_reads_no_more_than_its_draws() -> None:
    """A repeated run is the same run, and what is whitened is N(0, 1) along the line under an exact rule."""
    one, two = (run(Reflection(), 1, 1.0, 3, 4_000, 7) for _ in range(2))
    assert torch.equal(one.white, two.white) and bool(one.same.all())
    assert abs(float(one.white[:, 0].mean())) < 6 / math.sqrt(4_000)  # false alarm 2e-9


def test_a_small_study(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [Subject("reflection", Reflection(), 1), Subject("lenient", Lenient(), 1)]
    known.append(Subject("gaussian_recursive_rejection", GaussianRecursiveRejection(), 2))
    monkeypatch.setattr(gaussian_rules, "subjects", lambda *where: known if not where else known[1:2])
    monkeypatch.setattr(gaussian_rules, "DISTANCES", (1.0, 2.0))
    monkeypatch.setattr(gaussian_rules, "ROWS", {"quick": (300, 400)})
    study = gaussian_rules.run("quick")
    laws, kept, cost, planted = study.tables.values()
    assert len(laws) == len(kept) == len(cost) == 6 and len(planted) == 1 and len(study.figures) == 2
    assert [row["bias"] for row in laws] == ["none", "none", "biased", "biased", "none", "none"]
    assert "none is found biased" in study.text and "each is found biased" in study.text
