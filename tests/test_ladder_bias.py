"""The published and the released rule, switch by switch: their law by quadrature on the line, T = 2, and its bias."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from distributions.gaussian import Gaussian
from distributions.path import PathLaw
from distributions.schedule import Schedule
from distributions.tape import GeneratorTape, RecordingTape
from tests.ladder_models import Build, Case, double, head, innovations, normal_data
from verify.paths import last_residual
from verify.residual import ThinningCapped
from verify.verifier import Verifier
from verify.verifiers.cspd import Cspd
from verify.verifiers.cspd_released import CspdReleased
from verify.verifiers.last_gaussian import LastGaussian

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

SIGNAL = double([1.0, 0.8, 0.3])
GRID = Schedule(SIGNAL, (1 - SIGNAL**2).sqrt())
FIXED = Case(head(normal_data(), 1, GRID, 0.5), head(normal_data(1.0), 1, GRID, 0.5), 1)  # Sigma = 1
NARROW = Case(head(normal_data(), 1, GRID, 1.0), head(normal_data(0.2), 1, GRID, 0.0), 1)  # Sigma > 1
WIDE = Case(NARROW.target, NARROW.drafter, 1)  # Sigma < 1
published = CspdReleased.published


@dataclass(frozen=True)
class Law:
    """The law of one emitted token: its distribution function at ``places``, the target's and the draft's tokens', the
    acceptance, and the overlap of target and draft.
    """

    places: np.ndarray
    found: np.ndarray
    target: np.ndarray
    acceptance: float
    overlap: float

    @property
    def bias(self) -> float:
        """A lower bound on the total variation: the largest difference of the distribution functions."""
        return float(np.abs(self.found - self.target).max())


def outer(build: Build, rule: tuple[np.ndarray, np.ndarray]) -> tuple[Gaussian, Tensor, Tensor]:
    """The last kernel at every (x_2, noise of x_1) of a grid of standard normals, the step before, and the weights."""
    place, weight = rule
    start, noise = (double(item.ravel()) for item in np.meshgrid(place, place))
    kernel = build(torch.ones(1).double())
    before = kernel.step(2, start.unsqueeze(-1))
    assert isinstance(before, Gaussian)
    last = kernel.step(1, before.mean + before.scale * noise.unsqueeze(-1))
    assert isinstance(last, Gaussian)
    return last, before.scale[:, 0], double(np.outer(weight, weight).ravel()) / weight.sum() ** 2


def integral(density: Tensor, step: float) -> Tensor:
    """Up to every place of an even grid, by trapezoids."""
    return (density.cumsum(-1) - 0.5 * density) * step


@cache
def by_quadrature(case: Case, rule: CspdReleased) -> Law:
    """By the rule's definition, given both x_1, and Gauss-Hermite over them; y on a fine grid, trapezoids.

    Drafts without the last noise are points, of a density that the finer grid of ``point_masses`` smooths.
    """
    grid = np.polynomial.hermite_e.hermegauss(26)
    (mine, scale_p, weight), (theirs, scale_q, _) = outer(case.target, grid), outer(case.drafter, grid)
    mean_p, sd_p, mean_q, sd_q = (part[:, 0].unsqueeze(-1) for law in (mine, theirs) for part in (law.mean, law.scale))
    sigma = (scale_q / scale_p).log().unsqueeze(-1) * (-1 if rule.inverted else 1)
    low, high = (
        float(end) for end in (torch.minimum(mean_p, mean_q).min() - 6, torch.maximum(mean_p, mean_q).max() + 6)
    )
    y = torch.linspace(low, high, 3001).double()
    step = float(y[1] - y[0])

    def normal(at: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
        return torch.exp(-0.5 * ((at - mean) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))

    def accept(at: Tensor, mean_p: Tensor, mean_q: Tensor) -> Tensor:
        forms = 0.5 * (((at - mean_q) / sd_q) ** 2 - ((at - mean_p) / sd_p) ** 2)
        return (sigma + (sd_q / sd_p).log() + forms / rule.inner_temperature**2).clamp(max=0).exp()

    def point_masses() -> Tensor:
        place = np.linspace(-6, 6, 600)
        fine = place, np.exp(-(place**2) / 2)
        (mine, _, weight), (theirs, _, _) = outer(case.target, fine), outer(case.drafter, fine)
        assert torch.equal(sd_q, sd_q[:1].expand_as(sd_q))  # the variances are the schedule's alone
        sds = [part[:1, 0] for part in (sd_p, sd_q, sigma)]
        forms = -0.5 * ((theirs.mean[:, 0] - mine.mean[:, 0]) / sds[0]) ** 2
        odds = (sds[2] + (sds[1] / sds[0]).log() + forms / rule.inner_temperature**2).clamp(max=0).exp()
        mass = np.histogram(theirs.mean[:, 0], np.append(y.numpy() - step / 2, high + step / 2), weights=weight * odds)[
            0
        ]
        return double(mass).cumsum(0) - 0.5 * double(mass)

    density_p, density_q = normal(y, mean_p, sd_p), normal(y, mean_q, sd_q)
    keep = (1 - density_q / (density_p * sigma.exp())).clamp(min=0).nan_to_num(0)  # 0 / 0: no draw comes there
    if rule.last_noise:
        kept = integral(density_q * accept(y, mean_p, mean_q), step)
        chance = kept[:, -1:]
    else:
        chance = accept(mean_q, mean_p, mean_q)
        kept = point_masses().expand(len(weight), -1)  # the same in every row: its mean is what counts
    again = integral(density_p * keep, step)
    win = again[:, -1:]
    zeros = (1 - win) ** rule.tries if rule.tries is not None else torch.zeros_like(win)
    found = kept + (1 - chance) * ((1 - zeros) * again / win.clamp(min=1e-300) + zeros * (y >= 0))
    marginals = [(weight @ density).numpy() for density in (density_p, density_q)]
    target = weight @ torch.special.ndtr((y - mean_p) / sd_p)
    return Law(
        y.numpy(),
        (weight @ found).numpy(),
        target.numpy(),
        float(weight @ chance[:, 0]),
        float(np.minimum(*marginals).sum() * step),
    )


def emitted(case: Case, rule: Verifier, rows: int, seed: int = 1) -> tuple[np.ndarray, float]:
    """First tokens, and how many were kept."""
    tape = GeneratorTape(seed)
    draft, target = case.round(rows, 1, tape, rule)
    outcome = rule.verify(draft, target, tape)
    return target.token(outcome.value)[:, 0, 0].numpy(), float(outcome.kept.double().mean())


LOSSY: dict[str, tuple[Case, CspdReleased, float]] = {
    "as published, Sigma above 1": (NARROW, published(), 0.01),
    "inner temperature": (FIXED, published(inner_temperature=42.0), 0.1),
    "inverted, Sigma below 1": (WIDE, published(inverted=True), 0.01),
    "no last noise": (FIXED, published(last_noise=False), 0.02),
    "one try": (FIXED, published(tries=1), 0.01),
    "all of them, fixed variances": (FIXED, CspdReleased(), 0.1),
    "all of them, Sigma above 1": (NARROW, CspdReleased(), 0.02),
}


@pytest.mark.parametrize("name", LOSSY)
def test_bias_is_the_quadratures_and_is_seen(name: str) -> None:
    """Distribution function and acceptance agree with the quadrature, and KS against the target's sees the bias."""
    case, rule, least = LOSSY[name]
    law, rows = by_quadrature(case, rule), 40_000
    assert law.bias > least
    token, kept = emitted(case, rule, rows)
    found = np.searchsorted(np.sort(token), law.places, side="right") / rows
    # Massart: P(sup > t) <= 2 exp(-2 n t^2), false alarm 2e-7 at t = 0.0142; 2e-3 for the grid where there is an atom.
    assert np.abs(found - law.found).max() < 0.0142 + 2e-3
    assert abs(kept - law.acceptance) < 6 * 0.5 / math.sqrt(rows)
    assert stats.kstest(token, lambda y: np.interp(y, law.places, law.target)).pvalue < 1e-3


def test_as_published_is_exact_where_sigma_is_one() -> None:
    """Equal variances at every step: the quadrature finds the target's law, and ``cspd`` is ``last_gaussian``."""
    law = by_quadrature(FIXED, published())
    assert law.bias < 1e-4
    for rule in (Cspd(), LastGaussian()):
        token, kept = emitted(FIXED, rule, 20_000)
        assert stats.kstest(token, lambda y: np.interp(y, law.places, law.target)).pvalue > 1e-6  # false alarm 1e-6
        assert abs(kept - law.acceptance) < 6 * 0.5 / math.sqrt(20_000)
    assert by_quadrature(WIDE, published()).bias > 0.01 and by_quadrature(NARROW, published()).bias > 0.01


@pytest.mark.parametrize(
    "case, rule",
    [(FIXED, published(inner_temperature=42.0)), (NARROW, published()), (NARROW, Cspd())],
    ids=["inner temperature", "no switch", "as published"],
)
def test_excess_acceptance_certifies_the_bias(case: Case, rule: Verifier) -> None:
    """Lemma L2: TV(output, target) >= acceptance - (1 - TV of the marginals), positive beyond 6 standard errors."""
    law = by_quadrature(case, rule if isinstance(rule, CspdReleased) else published())
    _, kept = emitted(case, rule, 20_000)
    assert kept - law.overlap > 6 * 0.5 / math.sqrt(20_000)


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_tries_leave_zeros_with_their_probability(tries: int) -> None:
    """P(refused) (1 - TV)^tries given both x_1, TV that of (Sigma p - q)+ (6 s.e., 2e-9)."""
    law = by_quadrature(FIXED, published(tries=tries))
    at = int(np.searchsorted(law.places, 0.0))
    atom = law.found[at] - law.found[at - 1] - (law.target[at] - law.target[at - 1])
    rows = 40_000
    zeros = float((emitted(FIXED, published(tries=tries), rows)[0] == 0).mean())
    assert abs(zeros - atom) < 6 * math.sqrt(max(atom, 1e-6) / rows) + 1e-5
    assert atom > 1e-3


@pytest.mark.parametrize("case", [FIXED, NARROW], ids=["fixed", "narrow"])
def test_with_every_switch_undone_it_is_the_published_rule(case: Case) -> None:
    """Bit for bit, on one tape."""
    one, two = RecordingTape(GeneratorTape(2)), RecordingTape(GeneratorTape(2))
    draft, target = case.round(500, 2, GeneratorTape(1))
    first, second = Cspd().verify(draft, target, one), published().verify(draft, target, two)
    for part in ("value", "length", "kept"):
        assert torch.equal(getattr(first, part), getattr(second, part))
    assert torch.allclose(first.log_accept, second.log_accept, rtol=0, atol=1e-12)
    assert [draw.site for draw in one.draws] == [draw.site for draw in two.draws]


@pytest.mark.parametrize("switch", [{"rollback": False}, {"own_context": False}, {}], ids=str)
def test_the_second_token(switch: dict[str, Any]) -> None:
    """Given the first, the second token's path has the target's law, Sigma being 1, unless a switch is thrown."""
    rule, tape = published(**switch), GeneratorTape(3)
    draft, target = FIXED.round(20_000, 2, tape, rule)
    outcome = rule.verify(draft, target, tape)
    long = outcome.length >= 2
    value = outcome.value[long]
    law = PathLaw(FIXED.target(value[:, 0, -1]))
    white = innovations(value[:, 1], law)[:, 1:].sum((1, 2)) / math.sqrt(2)
    pvalue = min(stats.kstest(white.numpy(), "norm").pvalue, stats.pearsonr(white, value[:, 0, -1, 0]).pvalue)
    assert pvalue < 1e-8 if switch else pvalue > 1e-6  # false alarm 2e-6


def test_no_rollback_emits_the_whole_block() -> None:
    draft, target = FIXED.round(300, 3, GeneratorTape(0))
    outcome = published(rollback=False).verify(draft, target, GeneratorTape(1))
    assert bool((outcome.length == 3).all()) and bool((outcome.kept[:, 1:] & ~outcome.kept[:, :-1]).any())
    same = (outcome.value[:, :3, -1] == draft.value[:, :, -1]).all(-1)
    assert torch.equal(same, outcome.kept)


def test_drafts_without_the_last_noise_are_their_kernels_mean() -> None:
    law = PathLaw(FIXED.drafter(torch.ones(50, 1, 1).double()))
    assert CspdReleased.published().drafts(law, torch.zeros(0)).last_noise  # type: ignore[attr-defined]
    path = CspdReleased().drafts(law, torch.zeros(0)).sample(GeneratorTape(0), "x")
    assert torch.equal(path[..., -1, :], law.kernel.step(1, path[..., -2, :]).mean)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="drafts paths"):
        CspdReleased().drafts(Gaussian(torch.zeros(1), torch.ones(1)), torch.zeros(0))


def test_the_temperature_is_a_tolerance_on_a_distance() -> None:
    """With one deviation s at the end and fixed variances a drafted mean is kept w.p. exp(-distance^2 / 2 (42 s)^2)."""
    draft, target = FIXED.round(400, 1, GeneratorTape(0), CspdReleased())
    outcome = CspdReleased().verify(draft, target, GeneratorTape(1))
    assert isinstance(target, PathLaw) and isinstance(draft.law, PathLaw)
    from verify.gaussian.maximal import synchronous
    from verify.paths import follow

    beside = follow(draft.value, draft.law, target[:, :1], synchronous, GeneratorTape(1))
    apart = ((beside.target.mean - beside.draft.mean) / beside.target.scale)[..., 0]  # type: ignore[attr-defined]
    assert torch.allclose(outcome.log_accept, -0.5 * (apart / 42) ** 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="inner_temperature"):
        CspdReleased(temperature)


def test_a_residual_without_mass_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """(Sigma p - q)+ is nothing for equal laws and Sigma below 1: the published loop has no end there."""
    monkeypatch.setattr("verify.paths.TRIES", 50)
    law = Gaussian(torch.zeros(3, 1), torch.ones(1))
    weight = torch.full((3,), -0.1).double()
    with pytest.raises(ThinningCapped, match="next to no mass"):
        last_residual(law, law, weight, GeneratorTape(0))
    assert torch.equal(last_residual(law, law, weight, GeneratorTape(0), tries=5), torch.zeros(3, 1).double())


def test_the_quadrature_knows_the_normal_tail() -> None:
    """The target's token is N(m, v) here: linear kernels. Its distribution function is one to 1e-9."""
    law = by_quadrature(FIXED, published())
    mean = np.trapezoid(1 - law.target, law.places) + law.places[0]
    square = 2 * np.trapezoid((law.places - law.places[0]) * (1 - law.target), law.places)
    deviation = math.sqrt(square - (mean - law.places[0]) ** 2)
    assert np.abs(law.target - special.ndtr((law.places - mean) / deviation)).max() < 1e-5
