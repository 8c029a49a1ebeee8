"""Mixtures: densities, sampling, indexing, and overlaps on the line and in the plane."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest, norm

from distributions.categorical import Categorical
from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law, from_torch
from distributions.mixture import Mixture
from distributions.tape import GeneratorTape, RecordingTape, ReplayTape

EITHER = pytest.mark.parametrize("kind", [Gaussian, FullGaussian])


def make(kind: Any, *shape: int, seed: int = 0) -> Mixture:
    """A mixture of batch shape[:-2] with shape[-2] components in shape[-1] dimensions."""
    tape = GeneratorTape(seed)
    weights, mean = tape.race("weights", shape[:-1]), 2 * tape.normal("mean", shape)
    scale = 0.3 + tape.uniform("scale", shape)
    if kind is Gaussian:
        return Mixture(weights, Gaussian(mean, scale))
    below = (0.5 * tape.normal("below", (*shape, shape[-1]))).tril(-1)
    return Mixture(weights, FullGaussian(mean, below + torch.diag_embed(scale)))


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def diagonal(*parts: Mixture) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The means and scales of the components."""
    return [(law.components.mean, law.components.factor.diagonal(dim1=-2, dim2=-1)) for law in parts]


def single(law: Any) -> Mixture:
    return Mixture(torch.ones(*law.batch_shape, 1), law[..., None])


def wide(law: Mixture, size: int) -> Mixture:
    """``size`` copies of a law of batch shape ()."""
    return law[(None,)][torch.zeros(size, dtype=torch.long)]


@EITHER
def test_is_a_law(kind: Any) -> None:
    law = make(kind, 2, 5, 4, 3)
    assert isinstance(law, Law)
    assert law.batch_shape == (2, 5) and law.event_shape == (3,)
    assert law.sample(GeneratorTape(0), "x").shape == (2, 5, 3)
    assert (law.weights.sum(-1) - 1).abs().max() < 1e-15
    value = torch.zeros(2)
    assert law.token(value) is value


def test_refusals() -> None:
    parts = Gaussian(torch.zeros(3, 1), torch.ones(1))
    with pytest.raises(ValueError, match=r"components of batch \(3,\) do not match weights \(2,\)"):
        Mixture(torch.ones(2), parts)
    for bad in ([0.0, 0.0, 0.0], [1.0, 1.0, -1.0], [1.0, 1.0, float("nan")]):
        with pytest.raises(ValueError, match="weights must be finite"):
            Mixture(torch.tensor(bad), parts)
    with pytest.raises(ValueError, match="must end in the event shape"):
        make(Gaussian, 4, 3).log_prob(torch.zeros(5, 1))


@EITHER
def test_log_prob_is_that_of_torch(kind: Any) -> None:
    law = make(kind, 5, 4, 3)
    parts = torch.distributions.MultivariateNormal(law.components.mean, scale_tril=law.components.factor)
    peer = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(law.weights), parts)
    value = GeneratorTape(1).normal("v", (7, 5, 3))
    assert (law.log_prob(value) - peer.log_prob(value)).abs().max() < 1e-12
    assert (law.log_prob(value[:, :1]) - peer.log_prob(value[:, :1].expand(7, 5, 3))).abs().max() < 1e-12
    lifted = from_torch(peer)
    assert isinstance(lifted, Mixture) and lifted.batch_shape == (5,)
    assert (lifted.log_prob(value) - peer.log_prob(value)).abs().max() < 1e-12


def test_from_torch_of_mixed_normals() -> None:
    law = make(Gaussian, 3, 2)
    weights = torch.distributions.Categorical(law.weights)
    normal = torch.distributions.Normal(*diagonal(law)[0])
    whole = torch.distributions.MixtureSameFamily(weights, torch.distributions.Independent(normal, 1))
    lifted = from_torch(whole)
    value = GeneratorTape(1).normal("v", (7, 2))
    assert isinstance(lifted, Mixture) and (lifted.log_prob(value) - whole.log_prob(value)).abs().max() < 1e-12
    line = torch.distributions.Normal(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 0.5, 2.0]))
    lifted = from_torch(torch.distributions.MixtureSameFamily(weights, line))
    assert lifted.event_shape == (1,) and lifted.batch_shape == ()
    with pytest.raises(TypeError, match="no law for Gamma"):
        parts = torch.distributions.Gamma(torch.ones(3), torch.ones(3))
        from_torch(torch.distributions.MixtureSameFamily(weights, parts))


@EITHER
def test_samples_have_the_law(kind: Any) -> None:
    # Three projections against the mixture's distribution function: false alarms at 3.3e-7 each, 1e-6 together.
    law, size = make(kind, 3, 2), 50_000
    drawn = wide(law, size).sample(GeneratorTape(3), "x")
    for direction in ([1.0, 0.0], [0.0, 1.0], [0.6, -0.8]):
        along = torch.tensor(direction, dtype=torch.float64)
        mean = (law.components.mean @ along).numpy()
        scale = (law.components.factor.mT @ along).norm(dim=-1).numpy()

        def cdf(x: np.ndarray, mean: np.ndarray = mean, scale: np.ndarray = scale) -> np.ndarray:
            return norm.cdf((x[:, None] - mean) / scale) @ law.weights.numpy()

        assert kstest((drawn @ along).numpy(), cdf).pvalue > 3.3e-7


def test_a_replayed_sample_is_bit_identical() -> None:
    law, recording = make(FullGaussian, 6, 3, 2), RecordingTape(GeneratorTape(1))
    value = law.sample(recording, "x")
    assert [draw.site for draw in recording.draws] == ["x.component", "x.value"]
    assert torch.equal(law.sample(ReplayTape(recording.draws), "x"), value)


@EITHER
@pytest.mark.parametrize(
    "index",
    [1, slice(1, None), torch.tensor([2, 0, 0]), torch.tensor([True, False, True]), (slice(None), 2), (..., 0), None]
    + [(torch.tensor([0, 2]), torch.tensor([1, 3])), (1, 2), torch.eye(3, 4, dtype=torch.bool)],
)
def test_indexing_is_indexing_of_the_batch_bit_for_bit(kind: Any, index: Any) -> None:
    law = make(kind, 3, 4, 5, 2)
    marker = torch.arange(12).reshape(3, 4)[index]
    chosen = law[index]
    assert chosen.batch_shape == tuple(marker.shape) and chosen.event_shape == (2,)
    assert torch.equal(chosen.weights, law.weights.reshape(12, 5)[marker])
    assert torch.equal(chosen.components.mean, law.components.mean.reshape(12, 5, 2)[marker])
    assert torch.equal(chosen.components.factor, law.components.factor.reshape(12, 5, 2, 2)[marker])


# Overlaps on the line.


@pytest.mark.parametrize("seed", range(4))
def test_line_is_the_quadrature(seed: int) -> None:
    one, two = make(Gaussian, 3, 1, seed=seed), make(Gaussian, 2, 1, seed=seed + 10)

    def least(x: float) -> float:
        point = torch.tensor([x], dtype=torch.float64)
        return float(torch.minimum(one.log_prob(point), two.log_prob(point)).exp())

    edges = np.linspace(-20, 20, 81)
    parts = [quad(least, *pair, epsabs=1e-12, limit=60)[0] for pair in zip(edges[:-1], edges[1:], strict=True)]
    assert abs(float(one.overlap(two)) - sum(parts)) < 1e-9


def test_one_component_is_a_gaussian() -> None:
    laws = [make(Gaussian, 200, 1, 1, seed=seed).components[:, 0] for seed in (0, 1)]
    closed = laws[0].overlap(laws[1])
    for first, second in [(single(laws[0]), laws[1]), (laws[0], single(laws[1])), (single(laws[0]), single(laws[1]))]:
        assert (first.overlap(second) - closed).abs().max() < 1e-13


def test_far_components_add_up() -> None:
    # Components 1e3 apart do not meet: the overlap is the sum of weighted pairs.
    weights, place, scale = double(0.2, 0.3, 0.5), double(0.0, 1e3, 2e3), double(1.0, 1e-3, 2.0)
    one = Mixture(weights, Gaussian(place[:, None], scale[:, None]))
    two = Mixture(weights, Gaussian((place + double(1.0, 1e-3, 4.0))[:, None], scale[:, None]))
    wanted = 2 * weights.numpy() @ norm.cdf([-0.5, -0.5, -1.0])
    assert abs(float(one.overlap(two)) - wanted) < 1e-11  # 1e3 + 1e-3 is itself rounded


def test_near_tangent_densities_are_told_apart() -> None:
    # A narrow bump of weight w on a copy of the other law: for small w it adds w times what does not fit under it.
    base = Gaussian(torch.zeros(1), torch.ones(1))
    for weight in (1e-3, 1e-6, 1e-9):
        parts = Gaussian(double(0.0, 1.0)[:, None], double(1.0, 1e-3)[:, None])
        bumped = Mixture(double(1 - weight, weight), parts)
        lost = weight * (1 - float(base.overlap(Gaussian(torch.ones(1), torch.tensor([1e-3])))))
        assert abs(1 - float(bumped.overlap(base)) - lost) < 1e-3 * lost


def test_overlap_is_symmetric_batched_and_one_with_itself() -> None:
    one, two = make(Gaussian, 6, 3, 1), make(FullGaussian, 6, 4, 1, seed=1)
    found = one.overlap(two)
    assert (found - two.overlap(one)).abs().max() < 1e-14
    order = torch.tensor([2, 0, 1])
    same = Mixture(one.weights[:, order], one.components[:, order])
    assert (one.overlap(same) - 1).abs().max() < 1e-12 and (one.overlap(one) - 1).abs().max() < 1e-12
    for row in range(6):
        assert abs(float(one[row].overlap(two[row]) - found[row])) < 1e-14
    assert (one[:, None].overlap(two).diagonal() - found).abs().max() < 1e-14


def test_a_component_of_no_weight_does_not_count() -> None:
    one, two = make(Gaussian, 3, 1), make(Gaussian, 2, 1, seed=1)
    ((mean, scale),) = diagonal(two)
    more = Gaussian(torch.cat((mean, double(5.0)[None])), torch.cat((scale, double(3.0)[None])))
    padded = Mixture(torch.cat((two.weights, double(0.0))), more)
    assert abs(float(one.overlap(two) - one.overlap(padded))) < 1e-13


# Overlaps in the plane.


def test_plane_is_the_inversion_of_two_gaussians() -> None:
    laws = [make(FullGaussian, 12, 1, 2, seed=seed).components[:, 0] for seed in (0, 1)]
    assert (single(laws[0]).overlap(laws[1]) - laws[0].overlap(laws[1])).abs().max() < 1e-8


def test_plane_of_products_is_the_line() -> None:
    # Mixtures that differ in one coordinate only, the second or the first, overlap as they do on the line.
    one, two = make(Gaussian, 3, 1), make(Gaussian, 2, 1, seed=1)
    for flip in (False, True):
        grown = []
        for law, pair in zip((one, two), diagonal(one, two), strict=True):
            parts = [torch.cat((part, torch.ones_like(part)), -1) for part in pair]
            grown.append(Mixture(law.weights, Gaussian(*(part.flip(-1) if flip else part for part in parts))))
        assert abs(float(grown[0].overlap(grown[1]) - one.overlap(two))) < 1e-8


def test_plane_is_the_sampled_overlap() -> None:
    # A mean of 2e5 terms in [0, 1], within 5 standard errors but for 6e-7 each.
    size = 200_000
    for seed in range(2):
        one, two = make(FullGaussian, 2, 2, seed=seed), make(Gaussian, 2, 2, seed=seed + 5)
        value = wide(one, size).sample(GeneratorTape(seed), "x")
        term = (two.log_prob(value) - one.log_prob(value)).exp().clamp(max=1.0)
        found = one.overlap(two)
        assert abs(float(found - term.mean())) < 5 * float(term.std()) / size**0.5
        assert abs(float(two.overlap(one) - found)) < 1e-8


def test_no_formula_beyond_the_plane_or_across_kinds() -> None:
    with pytest.raises(TypeError, match="overlap of Mixture and Mixture"):
        make(Gaussian, 2, 3).overlap(make(Gaussian, 2, 3))
    with pytest.raises(TypeError, match="overlap of Mixture and Mixture"):
        make(Gaussian, 2, 3).components[0].overlap(make(Gaussian, 2, 3))
    with pytest.raises(TypeError, match="overlap of Mixture and Categorical"):
        make(Gaussian, 2, 1).overlap(Categorical(torch.ones(2)))


def test_a_mixture_without_a_batch_is_sampled() -> None:
    """One value of shape (d,): the same as the only row of a batch of one."""
    law = Mixture(torch.tensor([0.3, 0.7]), Gaussian(torch.tensor([[-3.0], [4.0]]), torch.ones(2, 1)))
    one, row = law.sample(GeneratorTape(5), "x"), law[None].sample(GeneratorTape(5), "x")
    assert one.shape == (1,) and torch.equal(one, row[0])
