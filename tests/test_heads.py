"""Exact heads against the score of the noisy density, posteriors against conditioning, and guidance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.heads import ExactHead, Head, axes, guided, posterior
from distributions.mixture import Mixture
from distributions.schedule import cosine, exploding, straight
from distributions.tape import GeneratorTape

TAPE = GeneratorTape(3)
NULL = torch.zeros(1, dtype=torch.float64)


def number(value: float) -> Tensor:
    """A level, in double precision from the start."""
    return torch.tensor(value, dtype=torch.float64)


def data(dim: int, parts: int = 3, diagonal: bool = False) -> Mixture:
    """A mixture of unequal weights, means and covariances."""
    tape = GeneratorTape(100 * dim + parts)
    mean = 1.5 * tape.normal("mean", (parts, dim))
    weights = 0.2 + tape.uniform("weights", (parts,))
    if diagonal:
        return Mixture(weights, Gaussian(mean, 0.2 + tape.uniform("scale", (parts, dim))))
    mixed = tape.normal("factor", (parts, dim, dim)) / math.sqrt(dim)
    return Mixture(weights, FullGaussian(mean, torch.linalg.cholesky(mixed @ mixed.mT + 0.05 * torch.eye(dim))))


def expanded(law: Mixture, condition: Tensor) -> Mixture:
    """The law for every condition, its means moved by the condition's first number."""
    moved = law.components.mean + condition[..., :1].unsqueeze(-1)
    factor = law.components.factor
    return Mixture(law.weights.expand(*condition.shape[:-1], -1), FullGaussian(moved, factor))


def log_density(law: Mixture, value: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """log of the density of signal x_0 + noise eps, written with torch's own laws."""
    factor = law.components.factor
    total = signal**2 * factor @ factor.mT + noise**2 * torch.eye(value.shape[-1]).double()
    parts = torch.distributions.MultivariateNormal(signal * law.components.mean, total)
    return (law.weights.log() + parts.log_prob(value.unsqueeze(-2))).logsumexp(-1)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 16])
@pytest.mark.parametrize("schedule", [cosine(20), exploding(), straight(5, 0.99)])
def test_tweedie(dim: int, schedule: object, diagonal: bool) -> None:
    """E[x_0 | x] = (x + noise^2 grad log density(x)) / signal and E[eps | x] = -noise grad (Robbins 1956)."""
    law = data(dim, diagonal=diagonal)
    head = ExactHead(lambda condition: expanded(law, condition) if not diagonal else law, NULL)
    for level in (1, 3, schedule.steps // 2, schedule.steps):  # type: ignore[attr-defined]
        signal, noise = schedule.signal[level], schedule.noise[level]  # type: ignore[attr-defined]
        value = (signal * 2 * TAPE.normal("x", (9, dim)) + noise * TAPE.normal("e", (9, dim))).requires_grad_()
        (score,) = torch.autograd.grad(log_density(law, value, signal, noise).sum(), value)
        value = value.detach()
        told = head(value, signal, noise, NULL.expand(9, 1))
        # noise^2 score cancels against x: what is left is good to this.
        error = 1e-13 * float((value.abs().max() + 1) / signal) + 1e-11
        assert torch.allclose(told.clean, (value + noise**2 * score) / signal, rtol=1e-10, atol=error)
        assert torch.allclose(told.noise, -noise * score, rtol=1e-9, atol=1e-9)
        assert torch.allclose(signal * told.clean + noise * told.noise, value, rtol=1e-12, atol=1e-12)
        assert told.fraction is None


@pytest.mark.parametrize("diagonal", [False, True])
def test_the_posterior_is_conditioning(diagonal: bool) -> None:
    """Component by component: x_0 given x by solving with the joint covariance of (x_0, x)."""
    law, signal, noise = data(3, diagonal=diagonal), number(0.7), number(0.4)
    value = TAPE.normal("x", (5, 3))
    log_weights, mean, root = posterior(law, value, signal, noise)
    for part in range(3):
        factor, centre = law.components.factor[part], law.components.mean[part]
        own = factor @ factor.T
        total = signal**2 * own + noise**2 * torch.eye(3).double()
        gain = torch.linalg.solve(total, signal * own).T
        wanted = centre + (value - signal * centre) @ gain.T
        assert torch.allclose(mean[:, part], wanted, atol=1e-12)
        left = own - gain @ (signal * own)
        assert torch.allclose((root @ root.mT)[part], left, atol=1e-13)
    normalised = log_weights.log_softmax(-1)
    joint = [
        law.weights[k].log() + log_density(Mixture(torch.ones(1), law.components[k : k + 1]), value, signal, noise)
        for k in range(3)
    ]
    assert torch.allclose(normalised, torch.stack(joint, -1).log_softmax(-1), atol=1e-12)


def test_the_ends_of_the_schedule() -> None:
    """At signal 0 the value says nothing, and the prediction is the data's mean; next to no noise, the value itself."""
    law = data(2)
    head = ExactHead(lambda condition: law, NULL)
    mean = (law.weights.unsqueeze(-1) * law.components.mean).sum(0)
    value = TAPE.normal("x", (4, 2))
    told = head(value, torch.zeros(()).double(), torch.ones(()).double(), NULL.expand(4, 1))
    assert torch.allclose(told.clean, mean.expand(4, 2), atol=1e-14) and torch.equal(told.noise, value)
    told = head(value, torch.ones(()).double(), torch.tensor(1e-8).double(), NULL.expand(4, 1))
    assert torch.allclose(told.clean, value, rtol=0, atol=1e-13)


def test_far_from_the_data() -> None:
    """A thousand deviations apart the weights under- and their ratio overflows; the mean is the nearer component's."""
    law = Mixture(torch.tensor([0.5, 0.5]), Gaussian(torch.tensor([[-1000.0], [1000.0]]), torch.ones(2, 1)))
    signal, noise = number(0.6), number(0.8)
    told = ExactHead(lambda condition: law, NULL)(
        torch.tensor([[-600.0], [650.0]]).double(), signal, noise, NULL.expand(2, 1)
    )
    wanted = 1000 + 0.6 / (0.36 + 0.64) * (650 - 600)
    assert told.clean.flatten().tolist() == pytest.approx([-1000.0, wanted], rel=1e-12)


def test_an_error_is_added_to_the_clean_value() -> None:
    law, signal, noise = data(2), number(0.8), number(0.6)
    value, none = TAPE.normal("x", (4, 2)), NULL.expand(4, 1)
    right, wrong = (ExactHead(lambda condition: law, NULL, error)(value, signal, noise, none) for error in (0.0, 0.3))
    assert torch.allclose(wrong.clean - right.clean, number(0.3))
    assert torch.allclose(wrong.noise - right.noise, number(-0.3 * 0.8 / 0.6))


def test_covariances_that_are_shared_are_decomposed_once() -> None:
    law = data(2)
    turn, variance = axes(expanded(law, torch.zeros(50, 1).double()))
    assert turn.shape == (1, 3, 2, 2) and variance.shape == (1, 3, 2)
    factor = law.components.factor
    assert torch.allclose((turn * variance.unsqueeze(-2)) @ turn.mT, factor @ factor.mT, atol=1e-14)
    own = Mixture(
        law.weights.expand(50, -1), FullGaussian(law.components.mean.expand(50, 3, 2), factor.repeat(50, 1, 1, 1))
    )
    assert axes(own)[0].shape == (50, 3, 2, 2)
    value, level = TAPE.normal("x", (50, 2)), (number(0.5), number(0.5))
    for one, other in zip(posterior(own, value, *level), posterior(law, value, *level), strict=True):
        assert torch.allclose(one, other.expand(one.shape), atol=1e-13)


# --- guidance --------------------------------------------------------------------------------------------------------
def test_guidance_extrapolates_the_noise() -> None:
    """eps = eps_none + s (eps_some - eps_none); for Gaussians of one covariance a mean moved s times as far."""
    law = data(2, 1)
    head = ExactHead(lambda condition: expanded(law, condition), NULL)
    assert isinstance(head, Head) and head.dim == 2
    signal, noise = number(0.8), number(0.6)
    value, some = TAPE.normal("x", (4, 2)), torch.full((4, 1), 0.7).double()
    told, untold = head(value, signal, noise, some), head(value, signal, noise, NULL.expand(4, 1))
    for scale in (0.0, 0.5, 3.0):
        found = guided(head, value, signal, noise, some, scale)
        assert torch.allclose(found.noise, untold.noise + scale * (told.noise - untold.noise), atol=1e-14)
        assert torch.allclose(signal * found.clean + noise * found.noise, value, atol=1e-13)
        moved = head(value, signal, noise, scale * some)
        assert torch.allclose(found.clean, moved.clean, atol=1e-13)
    assert torch.equal(guided(head, value, signal, noise, some).clean, told.clean)
