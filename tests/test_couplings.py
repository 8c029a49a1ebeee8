"""Couplings have the target's law, and keep the draft as often as their closed forms say."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor

from distributions.categorical import Categorical
from distributions.enumeration import enumerate_tape
from distributions.gaussian import Gaussian
from distributions.tape import GeneratorTape, RecordingTape, Tape
from verify.couplings import (
    couple,
    couple_gaussian,
    gamma_coupling,
    gamma_crossing,
    gamma_log_tail,
    gamma_quantile,
    maximal,
    reflection,
    reflection_overlap,
)
from verify.residual import ThinningCapped, log_ratio, residual, residual_law, thin

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

mass = st.one_of(st.just(0.0), st.floats(1e-6, 1.0), st.sampled_from([5e-324, 1e-300, 1e-17, 1.0]))


@st.composite
def pairs(draw: st.DrawFn, low: int = 2, high: int = 5) -> tuple[Categorical, Categorical]:
    """Two laws, one row each, with zeros, ties and masses from 5e-324 to 1."""
    vocab = draw(st.integers(low, high))
    row = st.lists(mass, min_size=vocab, max_size=vocab).filter(lambda item: sum(item) > 0)
    return (Categorical(double([draw(row)])), Categorical(double([draw(row)])))


def double(values: object) -> Tensor:
    """A float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def grid(size: int) -> Tensor:
    """Midpoints of ``size`` equal cells of [0, 1]: an expectation over them errs by at most a cell at each jump."""
    return (torch.arange(size, dtype=torch.float64) + 0.5) / size


@settings(deadline=None, max_examples=60)
@given(pairs())
def test_maximal_coupling_by_enumeration(pair: tuple[Categorical, Categorical]) -> None:
    target, draft = pair

    def run(index: Tensor, tape: Tape) -> tuple[Tensor, Tensor]:
        value = draft[index].sample(tape, "draft")
        return value, couple(value, target[index], draft[index], tape)

    law, kept = torch.zeros(target.probs.shape[-1], dtype=torch.float64), 0.0
    for _, weight, _, (value, coupled) in enumerate_tape(run, 1):
        law.index_add_(0, coupled, weight)
        kept += float(weight[value == coupled].sum())
    assert torch.allclose(law, target.probs[0], rtol=0, atol=1e-14)
    assert kept == pytest.approx(float(target.overlap(draft)), abs=1e-14)


def test_maximal_from_noise_has_the_law_of_its_enumerated_twin() -> None:
    target, draft = Categorical(double([0.5, 0.2, 0.0, 0.3])), Categorical(double([0.1, 0.6, 0.3, 0.0]))
    size = 200
    uniform, second = (item.flatten() for item in torch.meshgrid(grid(size), grid(size), indexing="ij"))
    law, kept_mass = torch.zeros(4, dtype=torch.float64), 0.0
    for token in range(4):
        value = torch.full(uniform.shape, token)
        coupled, kept = maximal(value, target, draft, uniform, second)
        assert bool((coupled[kept] == token).all()) and not bool((coupled[~kept] == token).any())
        law += draft.probs[token] * torch.bincount(coupled, minlength=4) / size**2
        kept_mass += float(draft.probs[token] * kept.double().mean())
    assert torch.allclose(law, target.probs, atol=2 / size)
    assert kept_mass == pytest.approx(float(target.overlap(draft)), abs=1 / size)


@settings(deadline=None, max_examples=60)
@given(pairs())
def test_residual_law(pair: tuple[Categorical, Categorical]) -> None:
    target, draft = pair
    law = residual_law(target, draft).probs[0]
    excess = (target.probs - draft.probs)[0].clamp(min=0)
    assert not bool((law[target.probs[0] == 0] > 0).any())
    if float(excess.sum()) > 0:
        assert torch.allclose(law * excess.sum(), excess, rtol=1e-12, atol=0)


def test_a_residual_emptied_by_rounding_is_the_target_and_not_index_zero() -> None:
    # Token 0 is drafted with 5e-324 too much; no other token has room for the difference.
    target, draft = Categorical(double([[0.0, 1.0]])), Categorical(double([[5e-324, 1.0]]))
    assert float((target.probs - draft.probs).clamp(min=0).sum()) == 0
    assert float(log_ratio(torch.tensor([0]), target, draft)) == -math.inf
    assert residual(target, draft, GeneratorTape(0)).tolist() == [1]


def test_thinning_enumerates_to_the_residual() -> None:
    target = Categorical(double([[0.5, 0.2, 0.0, 0.3], [0.1, 0.2, 0.3, 0.4]]))
    draft = Categorical(double([[0.1, 0.6, 0.3, 0.0], [0.7, 0.1, 0.1, 0.1]]))
    law, lost = torch.zeros(2, 4, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    batches = enumerate_tape(lambda index, tape: thin(target[index], draft[index], tape), 2, min_mass=1e-6)
    for index, weight, dropped, value in batches:
        law.index_put_((index, value), weight, accumulate=True)
        lost.index_add_(0, index, dropped)
    wanted = residual_law(target, draft).probs
    assert bool((law <= wanted + 1e-12).all()) and bool(((wanted - law).sum(-1) <= lost + 1e-12).all())
    assert float(lost.max()) < 1e-2


def test_thinning_raises_at_its_cap_and_never_pads() -> None:
    law = Categorical(double([[0.5, 0.5]]))
    with pytest.raises(ThinningCapped, match="1 of 1 rows"):
        thin(law, law, GeneratorTape(0), cap=50)


def test_thinning_draws_one_proposal_for_each_coin_examined() -> None:
    """Lemma L8: E[N] = 1 and E[N^2] = (2 - TV) / TV over all coins, kept ones counting 0."""
    rows, distance = 40_000, 1.0
    target = Gaussian(torch.full((rows, 1), distance), torch.ones(1))
    draft = Gaussian(torch.zeros(rows, 1), torch.ones(1))
    tape = RecordingTape(GeneratorTape(3))
    value = draft.sample(tape, "draft")
    rejected = ~tape.coin("accept", log_ratio(value, target, draft).exp().clamp(max=1))
    thin(target[rejected], draft[rejected], tape[rejected])
    proposals = sum(len(item.value) for item in tape.draws if item.site == "residual.proposal")
    variation = 1 - float(reflection_overlap(double(distance)))
    deviation = math.sqrt(rows * ((2 - variation) / variation - 1))
    assert abs(proposals - rows) < 6 * deviation  # false alarm 2e-9 by the normal tail


@pytest.mark.parametrize("distance", [0.0, 1e-9, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("coupling", ["reflection", "gamma"])
def test_gaussian_couplings_on_a_grid(coupling: str, distance: float) -> None:
    """Over a grid of its noise the coupled noise is standard normal and kept as often as two normals overlap."""
    size = 1000 if coupling == "reflection" else 250
    quantiles = torch.as_tensor(stats.norm.ppf(grid(size).numpy()))
    noise, uniform = (item.flatten() for item in torch.meshgrid(quantiles, grid(size), indexing="ij"))
    shift = torch.full((size**2, 1), distance, dtype=torch.float64)
    if coupling == "reflection":
        moved, kept = reflection(noise.unsqueeze(-1), shift, uniform)
    else:
        # The second uniform runs through its own cells, independently of both others: a lattice of the same size.
        second = (torch.arange(size**2).double() * ((math.sqrt(5) - 1) / 2)) % 1.0
        moved, kept = gamma_coupling(noise.unsqueeze(-1), shift, uniform, second)
    assert float(kept.double().mean()) == pytest.approx(float(reflection_overlap(double(distance))), abs=2 / size)
    far = stats.kstest(moved[:, 0].numpy(), "norm").statistic
    assert far < (3 / size if coupling == "reflection" else 6 / size)


def test_reflection_is_safe_at_its_edges() -> None:
    noise, zero = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.zeros(7)
    for coupled, kept in (
        reflection(noise, torch.zeros(7, 3).double(), torch.full((7,), 1 - 2**-53, dtype=torch.float64)),
        gamma_coupling(noise, torch.zeros(7, 3).double(), zero.double(), zero.double()),
    ):
        assert bool(kept.all()) and torch.equal(coupled, noise)
    # u = 0 keeps exactly where the target's density is the larger, and is never infinite.
    shift = torch.tensor([[1.0, 0.0, 0.0]]).double().expand(7, 3)
    moved, kept = reflection(noise, shift, zero.double())
    assert torch.equal(kept, noise[:, 0] >= 0.5) and bool(torch.isfinite(moved).all())
    # Across the shift the noise is untouched, whatever happens along it.
    assert torch.equal(moved[:, 1:], noise[:, 1:])


def test_couple_gaussian_keeps_values_bit_for_bit_and_refuses_unequal_scales() -> None:
    rows = 30_000
    draft = Gaussian(torch.zeros(rows, 2), torch.tensor([1.0, 3.0]))
    target = Gaussian(double([0.7, -1.0]).expand(rows, 2), torch.tensor([1.0, 3.0]))
    tape = GeneratorTape(5)
    value = draft.sample(tape, "draft")
    coupled, kept = couple_gaussian(value, target, draft, tape)
    assert torch.equal(coupled[kept], value[kept]) and not bool((coupled[~kept] == value[~kept]).all(-1).any())
    overlap = float(target.overlap(draft)[0])
    # False alarm 2e-9: six standard deviations of a binomial fraction.
    assert abs(float(kept.double().mean()) - overlap) < 6 * math.sqrt(overlap * (1 - overlap) / rows)
    white = ((coupled - target.mean) / target.scale).numpy()
    for sample in (white[:, 0], white[:, 1], white.sum(1) / math.sqrt(2), (white[:, 0] - white[:, 1]) / math.sqrt(2)):
        assert stats.kstest(sample, "norm").pvalue > 1e-8  # false alarm 4e-8 over the four
    with pytest.raises(ValueError, match="one covariance"):
        couple_gaussian(value, target, Gaussian(draft.mean, torch.ones(2)), tape)


@pytest.mark.parametrize(
    ("distance", "weight"),
    [
        (1e-6, 1.0),
        (1e-6, 2.0),
        (0.05, 0.9),
        (0.05, 1.0),
        (1.0, 0.1),
        (1.0, 1.0),
        (1.0, 50.0),
        (6.0, 1e-3),
        (30.0, 1e-3),
    ],
)
def test_gamma_quantile_inverts_its_tail(distance: float, weight: float) -> None:
    gap, level = double(distance), double(math.log(weight))
    uniform = double([0.0, 1e-9, 0.1, 0.5, 0.9, 1 - 1e-9, 1 - 2**-53])
    place = gamma_quantile(uniform, gap, level)
    assert bool(torch.isfinite(place).all()) and bool((place.diff() > 0).all())
    crossing = gamma_crossing(gap, level)
    start = gamma_log_tail(crossing.clamp(min=-40.0), gap, level)
    found = 1 - (gamma_log_tail(place, gap, level) - start).exp()
    # Two nearly equal tails leave machine precision over the distance.
    assert torch.allclose(found, uniform, rtol=0, atol=1e-12 + 1e-15 / distance)


@pytest.mark.parametrize(("distance", "weight"), [(0.5, 1.0), (1.0, 0.6), (2.0, 3.0), (0.2, 1.5)])
def test_gamma_quantile_against_quadrature(distance: float, weight: float) -> None:
    def excess(place: float) -> float:
        return max(0.0, weight * float(stats.norm.pdf(place - distance)) - float(stats.norm.pdf(place)))

    crossing = float(gamma_crossing(double(distance), double(math.log(weight))))
    total, _ = integrate.quad(excess, max(crossing, -12.0), 12.0 + distance, epsabs=1e-13)
    for uniform in (0.03, 0.4, 0.97):
        arguments = (double(item) for item in (uniform, distance, math.log(weight)))
        below, _ = integrate.quad(excess, max(crossing, -12.0), float(gamma_quantile(*arguments)), epsabs=1e-13)
        assert below / total == pytest.approx(uniform, abs=1e-10)


def test_gamma_quantile_raises_where_there_is_no_residual() -> None:
    zero = torch.zeros(1).double()
    with pytest.raises(ValueError, match="no mass"):
        gamma_quantile(zero, zero, zero)
    # A weight above 1 leaves a residual at equal means too: the standard normal itself.
    assert float(gamma_quantile(double(0.5), zero, zero + 1)) == pytest.approx(0.0, abs=1e-9)
