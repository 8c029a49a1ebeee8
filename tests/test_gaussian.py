"""Gaussian laws: densities, sampling, indexing, and every overlap formula against another way to the same number."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import log_ndtr, ndtr
from scipy.stats import chi2, kstest, ncx2, norm
from torch import Tensor

from distributions import imhof
from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law, from_torch
from distributions.normal import normal_between, normal_cdf
from distributions.tape import GeneratorTape

EITHER = pytest.mark.parametrize("kind", [Gaussian, FullGaussian])


def make(kind: type[Gaussian] | type[FullGaussian], *shape: int, seed: int = 0) -> Gaussian | FullGaussian:
    """A law of batch shape[:-1] in shape[-1] dimensions."""
    tape = GeneratorTape(seed)
    mean, scale = tape.normal("mean", shape), 0.3 + tape.race("scale", shape)
    if kind is Gaussian:
        return Gaussian(mean, scale)
    return FullGaussian(mean, (0.5 * tape.normal("below", (*shape, shape[-1]))).tril(-1) + torch.diag_embed(scale))


@EITHER
def test_is_a_law(kind: Any) -> None:
    law = make(kind, 2, 5, 3)
    assert isinstance(law, Law)
    assert law.batch_shape == (2, 5) and law.event_shape == (3,)
    assert law.sample(GeneratorTape(0), "x").shape == (2, 5, 3)
    assert law.token(law.mean) is law.mean


def test_scales_broadcast_and_all_is_float64() -> None:
    law = Gaussian(torch.zeros(4, 3, dtype=torch.float32), torch.tensor(2.0))
    assert law.mean.dtype == law.scale.dtype == torch.float64 and law.scale.shape == (4, 3)
    assert Gaussian(torch.zeros(3), torch.ones(4, 3)).batch_shape == (4,)
    assert FullGaussian(torch.zeros(4, 3), torch.eye(3)).scale_tril.shape == (4, 3, 3)
    assert FullGaussian(torch.zeros(3), torch.eye(3).expand(4, 3, 3)).mean.shape == (4, 3)


@pytest.mark.parametrize(
    "mean, scale, message",
    [
        ([0.0, 0.0], [1.0, 0.0], "scale must be positive"),
        ([0.0, 0.0], [1.0, -1.0], "scale must be positive"),
        ([0.0, 0.0], [1.0, float("inf")], "scale must be positive"),
        ([0.0, float("nan")], [1.0, 1.0], "mean must be finite"),
        ([0.0, 0.0], [1.0, 1.0, 1.0], "do not match"),
        ([0.0], [1.0, 1.0], "do not match"),
        (0.0, [1.0], "mean must end in an event axis"),
    ],
)
def test_diagonal_refusals(mean: Any, scale: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gaussian(torch.tensor(mean), torch.tensor(scale))


@pytest.mark.parametrize(
    "factor, message",
    [
        ([[1.0, 0.1], [0.0, 1.0]], "lower triangular"),
        ([[1.0, 0.0], [0.0, -1.0]], "positive diagonal"),
        ([[1.0, 0.0], [float("nan"), 1.0]], "must be finite"),
        ([[1.0]], r"must be \(2, 2\)"),
    ],
)
def test_full_refusals(factor: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FullGaussian(torch.zeros(2), torch.tensor(factor))


def test_a_value_of_another_size_is_refused_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"must end in the event shape \(3,\)"):
        make(Gaussian, 4, 3).log_prob(torch.zeros(4, 1))


def test_log_prob_is_that_of_torch() -> None:
    value = GeneratorTape(3).normal("v", (7, 1, 3))
    law = make(Gaussian, 5, 3)
    peer = torch.distributions.Independent(torch.distributions.Normal(law.mean, law.scale), 1)
    assert (law.log_prob(value) - peer.log_prob(value)).abs().max() < 1e-12
    full = make(FullGaussian, 5, 3)
    other = torch.distributions.MultivariateNormal(full.mean, scale_tril=full.scale_tril)
    assert (full.log_prob(value) - other.log_prob(value)).abs().max() < 1e-12


@EITHER
def test_samples_have_the_law(kind: Any) -> None:
    # Whitened coordinates are standard normal and their radius chi-square: 4 tests at 2.5e-7, false alarms 1e-6.
    law, size = make(kind, 3), 50_000
    wide = kind(law.mean.expand(size, 3), law.factor if kind is FullGaussian else law.scale)
    white = torch.linalg.solve_triangular(law.factor, (wide.sample(GeneratorTape(7), "x") - law.mean).T, upper=False)
    assert all(kstest(row.numpy(), "norm").pvalue > 2.5e-7 for row in white)
    assert kstest(white.square().sum(0).numpy(), chi2(3).cdf).pvalue > 2.5e-7


@EITHER
@pytest.mark.parametrize(
    "index",
    [1, slice(1, None), torch.tensor([2, 0, 0]), torch.tensor([True, False, True]), (slice(None), 2), (..., 0), None]
    + [(torch.tensor([0, 2]), torch.tensor([1, 3])), (slice(None), torch.tensor([3, 0])), (1, 2)],
)
def test_indexing_is_indexing_of_the_batch_bit_for_bit(kind: Any, index: Any) -> None:
    law = make(kind, 3, 4, 2)
    marker = torch.arange(12).reshape(3, 4)[index]
    chosen = law[index]
    assert type(chosen) is kind and chosen.batch_shape == tuple(marker.shape) and chosen.event_shape == (2,)
    assert torch.equal(chosen.mean, law.mean.reshape(12, 2)[marker])
    assert torch.equal(chosen.factor, law.factor.reshape(12, 2, 2)[marker])


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Overlaps. `ball` is exact for proportional covariances, where the densities cross on a sphere.


def ball(shift: np.ndarray, spread: float) -> float:
    """Overlap of N(shift, spread I) and N(0, I), from noncentral chi-squares; spread > 1."""
    dim, square = len(shift), 0.5 * (1 - 1 / spread)
    centre = shift / (2 * square * spread)
    level = -0.5 * dim * np.log(spread) - shift @ shift / (2 * spread)
    radius = centre @ centre - level / square
    away = shift + centre
    inside = ncx2.cdf(radius / spread, dim, away @ away / spread)
    return float(inside + ncx2.sf(radius, dim, centre @ centre))


def test_equal_covariances_depend_on_the_mahalanobis_distance() -> None:
    one = make(FullGaussian, 6, 4)
    two = FullGaussian(make(FullGaussian, 6, 4, seed=1).mean, one.factor)
    apart = (one.mean - two.mean).unsqueeze(-1)
    distance = (apart.mT @ torch.linalg.inv(one.factor @ one.factor.mT) @ apart).sqrt().flatten()
    assert np.abs(one.overlap(two).numpy() - 2 * norm.cdf(-distance.numpy() / 2)).max() < 1e-11
    plain = make(Gaussian, 6, 4)
    moved = Gaussian(two.mean, plain.scale)
    distance = ((plain.mean - moved.mean) / plain.scale).norm(dim=-1)
    assert np.abs(plain.overlap(moved).numpy() - 2 * norm.cdf(-distance.numpy() / 2)).max() < 1e-15
    full = FullGaussian(moved.mean, moved.factor)
    assert (plain.overlap(full) - plain.overlap(moved)).abs().max() < 1e-12


@pytest.mark.parametrize("mean, scale", [(0.0, 2.0), (1.0, 1.001), (1.0, 0.2), (-3.0, 5.0), (0.3, 1.0), (0.01, 0.999)])
def test_line_is_the_quadrature(mean: float, scale: float) -> None:
    exact = Gaussian(double(0.4 + mean), double(0.7 * scale)).overlap(Gaussian(double(0.4), double(0.7)))
    first, second = norm(0.4 + mean, 0.7 * scale), norm(0.4, 0.7)
    edges = np.linspace(-25, 25, 201)
    pairs = zip(edges[:-1], edges[1:], strict=True)
    parts = [quad(lambda x: min(first.pdf(x), second.pdf(x)), *pair, epsabs=1e-14, epsrel=0)[0] for pair in pairs]
    assert abs(float(exact) - sum(parts)) < 1e-10


def test_line_is_smooth_where_the_scales_meet() -> None:
    steps = torch.tensor([0.0, 1e-300, 1e-17, 1e-15, 1e-12, 1e-9]).double().repeat(2)
    shift = torch.tensor([0.0, 1.3]).double().repeat_interleave(6)
    moved = Gaussian(shift.unsqueeze(-1), steps.exp().unsqueeze(-1)).overlap(Gaussian(torch.zeros(1), torch.ones(1)))
    assert np.abs(moved.numpy() - 2 * norm.cdf(-shift.numpy() / 2)).max() < 1e-9


# Rounded: at a noncentrality of 1e-320 scipy's ncx2.cdf is off by 3e-4.
SHIFT = st.floats(-3, 3).map(lambda value: round(value, 6))


@settings(deadline=None, max_examples=60)
@given(st.lists(SHIFT, min_size=1, max_size=6), st.floats(1.01, 20.0))
def test_proportional_covariances_cross_on_a_sphere(shift: list[float], spread: float) -> None:
    first = Gaussian(double(*shift), double(spread**0.5))
    second = Gaussian(torch.zeros(len(shift)), torch.ones(len(shift)))
    assert abs(float(first.overlap(second)) - ball(np.array(shift), spread)) < 1e-10
    turned = FullGaussian(first.mean, first.factor)
    assert abs(float(second.overlap(turned)) - ball(np.array(shift), spread)) < 1e-10


@pytest.mark.parametrize("dim", [2, 3, 6])
def test_inversion_reduces_to_the_line(dim: int) -> None:
    # Coordinates in which the laws agree do not count, and only the inversion knows more than one of them.
    line = make(Gaussian, 20, 1), make(Gaussian, 20, 1, seed=1)
    same = make(Gaussian, 20, dim - 1, seed=2)
    joint = [Gaussian(torch.cat((law.mean, same.mean), -1), torch.cat((law.scale, same.scale), -1)) for law in line]
    assert (joint[0].overlap(joint[1]) - line[0].overlap(line[1])).abs().max() < 1e-10


@pytest.mark.parametrize("dim", [1, 3, 16])
def test_inversion_agrees_with_the_closed_form_of_equal_covariances(dim: int) -> None:
    shift = GeneratorTape(1).normal("shift", (50, dim))
    found = imhof.overlap(shift, torch.zeros(50, dim, dtype=torch.float64))
    assert np.abs(found.numpy() - 2 * norm.cdf(-shift.norm(dim=-1).numpy() / 2)).max() < 1e-12


def test_near_equal_covariances_join_the_closed_form() -> None:
    stretch = torch.logspace(-15, -6, 10, dtype=torch.float64).unsqueeze(-1) * double(1.0, -2.0, 0.5)
    first = Gaussian(double(0.5, 0.2, -1.0), (0.5 * stretch).exp())
    found = first.overlap(Gaussian(torch.zeros(3), torch.ones(3)))
    assert (found - 2 * norm.cdf(-0.5 * 1.29**0.5)).abs().max() < 1e-6
    assert found.diff().abs()[:5].max() < 1e-9


@pytest.mark.parametrize("dim", [3, 7])
def test_inversion_is_the_sampled_overlap(dim: int) -> None:
    # 1 - TV = E_first[min(1, ratio)]: a mean of 2e5 terms in [0, 1], within 5 standard errors but for 6e-7 each.
    size = 200_000
    for seed in range(3):
        one, two = make(FullGaussian, dim, seed=seed), make(FullGaussian, dim, seed=seed + 10)
        value = FullGaussian(one.mean.expand(size, dim), one.factor).sample(GeneratorTape(seed), "x")
        term = (two.log_prob(value) - one.log_prob(value)).exp().clamp(max=1.0)
        assert abs(float(one.overlap(two) - term.mean())) < 5 * float(term.std()) / size**0.5


def mismatch(count: int, ratio: float) -> tuple[float, float]:
    """Exact TV of ``count`` coordinates whose scales have one ratio, and its normal approximation."""
    law, other = Gaussian(torch.zeros(count), double(ratio)), Gaussian(torch.zeros(count), double(1.0))
    return 1 - float(law.overlap(other)), 2 * norm.cdf((2 * count) ** 0.5 * np.log(ratio) / 2) - 1


def test_variance_mismatch_alone() -> None:
    exact, approximate = mismatch(1600, 1.02)  # 100 steps of 16 coordinates, two per cent in the standard deviation
    assert abs(exact - approximate) < 1e-3 and 0.42 < exact < 0.43
    exact, approximate = mismatch(16, 1.2)
    assert abs(exact - (1 - ball(np.zeros(16), 1.44))) < 1e-10 and abs(exact - approximate) < 0.01


@EITHER
def test_overlap_is_symmetric_and_invariant(kind: Any) -> None:
    one, two = make(kind, 8, 3), make(kind, 8, 3, seed=1)
    found = one.overlap(two)
    assert (found - two.overlap(one)).abs().max() < 1e-12
    assert (one.overlap(one) - 1).abs().max() < 1e-12
    mix = GeneratorTape(4).normal("mix", (3, 3))
    moved = [
        FullGaussian(law.mean @ mix.T + 1, torch.linalg.cholesky(mix @ law.factor @ law.factor.mT @ mix.T))
        for law in (one, two)
    ]
    assert (found - moved[0].overlap(moved[1])).abs().max() < 1e-9
    for row in range(8):  # a batch is its members
        assert abs(float(one[row].overlap(two[row]) - found[row])) < 1e-11
    grid = one[:, None].overlap(two)
    assert grid.shape == (8, 8) and (grid.diagonal() - found).abs().max() < 1e-11


def test_laws_far_apart_share_nothing() -> None:
    far = Gaussian(torch.tensor([1e5, 0.0, 0.0]), torch.tensor([1.0, 2.0, 0.1]))
    assert far.overlap(Gaussian(torch.zeros(3), torch.ones(3))) == 0
    spread = Gaussian(torch.zeros(2), double(1e-8, 1e8)).overlap(Gaussian(torch.zeros(2), torch.ones(2)))
    assert 0 <= float(spread) < 1e-7


def test_overlap_of_different_spaces_has_no_formula() -> None:
    with pytest.raises(TypeError, match="overlap of Gaussian and FullGaussian"):
        make(Gaussian, 2).overlap(make(FullGaussian, 3))
    with pytest.raises(TypeError, match="overlap of Gaussian and Tensor"):
        make(Gaussian, 2).overlap(torch.zeros(2))


def samples_agree(law: Law, peer: torch.distributions.Distribution, value: Tensor) -> bool:
    return bool((law.log_prob(value) - peer.log_prob(value)).abs().max() < 1e-12)


def test_from_torch_keeps_the_batch_and_adds_the_missing_event_axis() -> None:
    base, tape = make(Gaussian, 4, 3), GeneratorTape(2)
    normal = torch.distributions.Normal(base.mean, base.scale)
    law = from_torch(normal)
    value = tape.normal("v", (5, 4, 3))
    assert isinstance(law, Gaussian) and law.batch_shape == (4, 3) and law.event_shape == (1,)
    assert (law.log_prob(value.unsqueeze(-1)) - normal.log_prob(value)).abs().max() < 1e-12
    law = from_torch(torch.distributions.Independent(normal, 1))
    assert isinstance(law, Gaussian) and law.batch_shape == (4,) and law.event_shape == (3,)
    assert samples_agree(law, torch.distributions.Independent(normal, 1), value)
    assert from_torch(torch.distributions.Independent(normal, 0)).event_shape == (1,)
    full = make(FullGaussian, 4, 3)
    for peer in (
        torch.distributions.MultivariateNormal(full.mean, scale_tril=full.scale_tril),
        torch.distributions.MultivariateNormal(full.mean, covariance_matrix=full.scale_tril @ full.scale_tril.mT),
    ):
        law = from_torch(peer)
        assert isinstance(law, FullGaussian) and law.batch_shape == (4,) and samples_agree(law, peer, value)


PEER = torch.distributions


@pytest.mark.parametrize(
    "peer, name",
    [
        (PEER.Laplace(0.0, 1.0), "Laplace"),
        (PEER.LogNormal(torch.zeros(2), torch.ones(2)), "LogNormal"),
        (PEER.Independent(PEER.Normal(torch.zeros(2, 2), 1.0), 2), r"Independent\(Normal, 2\)"),
        (PEER.Independent(PEER.Laplace(torch.zeros(2), 1.0), 1), r"Independent\(Laplace, 1\)"),
    ],
)
def test_from_torch_names_what_it_does_not_know(peer: torch.distributions.Distribution, name: str) -> None:
    with pytest.raises(TypeError, match=f"no law for {name}; give a Categorical"):
        from_torch(peer)


# Overlaps far out, against four hundred digits: a tail of 1e-300 is 1 less a body.


def overlap_in_digits(shift: float, spread: float) -> mpmath.mpf:
    """1 - TV of N(shift, spread^2) and N(0, 1): min of the two densities between and beyond their crossing points."""

    def tail(place: mpmath.mpf) -> mpmath.mpf:
        return mpmath.erfc(place / mpmath.sqrt(2)) / 2

    with mpmath.workdps(400):
        mean, deviation = mpmath.mpf(shift), mpmath.mpf(spread)
        if deviation == 1:
            return 2 * tail(abs(mean) / 2)
        square, slope = deviation**-2 - 1, -2 * mean / deviation**2
        root = mpmath.sqrt(slope**2 - 4 * square * ((mean / deviation) ** 2 + 2 * mpmath.log(deviation)))
        ends = sorted([(-slope - root) / (2 * square), (-slope + root) / (2 * square)])
        moved = [(end - mean) / deviation for end in ends]
        inner, outer = (moved, ends) if deviation > 1 else (ends, moved)  # the wider law is the lesser one between
        return tail(inner[0]) - tail(inner[1]) + tail(-outer[0]) + tail(outer[1])


@pytest.mark.parametrize("spread", [0.05, 0.5, 0.9, 0.999, 1 - 1e-9, 1.0, 1 + 1e-9, 1.001, 1.5, 8.0])
@pytest.mark.parametrize("shift", [0.0, 1.0, 10.0, -10.0, 30.0, -30.0, 60.0, -60.0])
def test_line_keeps_its_digits_far_out(shift: float, spread: float) -> None:
    """In logarithms, which an error of one part in 1e12 moves by 1e-12: overlaps down to 1e-300 and below."""
    found = float(Gaussian(double(shift), double(spread)).overlap(Gaussian(double(0.0), double(1.0))))
    wanted = overlap_in_digits(shift, spread)
    if wanted < 1e-300:  # below it a double has fewer digits
        assert found < 1e-299
    else:
        assert abs(float(mpmath.log(mpmath.mpf(found) / wanted))) < 2e-12


@pytest.mark.parametrize("distance", [1e-9, 1.0, 10.0, 30.0, 60.0])
def test_equal_covariances_keep_their_digits_far_out(distance: float) -> None:
    """2 Phi(-Delta / 2) in logarithms, in four dimensions, diagonal and full, and for one covariance written twice."""
    direction = double(0.5, -0.5, 0.1, 0.7)
    scale = double(0.5, 1.0, 3.0, 1e-3)
    below = torch.tensor([[1.0, 0, 0, 0], [2, 1, 0, 0], [0, -1, 1, 0], [0.5, 0, 0, 1]]).double() * scale.unsqueeze(-1)
    for law, factor in ((Gaussian, torch.diag(scale)), (FullGaussian, below)):
        part = scale if law is Gaussian else factor
        moved = factor @ (direction / direction.norm() * distance)
        found = float(law(moved, part).overlap(law(torch.zeros(4).double(), part)))
        wanted = float(log_ndtr(-distance / 2)) + np.log(2)
        assert np.log(found) == pytest.approx(wanted, abs=1e-11)


def test_the_normal_law_keeps_its_digits() -> None:
    place = torch.linspace(-37, 37, 149, dtype=torch.float64)
    assert np.allclose(normal_cdf(place).numpy(), ndtr(place.numpy()), rtol=1e-12, atol=0)
    low, high = place[:-1], place[1:]
    with mpmath.workdps(400):
        wanted = [
            float(mpmath.ncdf(end) - mpmath.ncdf(start)) for start, end in zip(low.tolist(), high.tolist(), strict=True)
        ]
    assert np.allclose(normal_between(low, high).numpy(), wanted, rtol=1e-12, atol=0)
