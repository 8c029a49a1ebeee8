"""Heads: from a noisy value to what its clean value was; the small network, or the formula, that draws one token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from distributions.gaussian import Gaussian
from distributions.mixture import Mixture


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a head says of x = signal x_0 + noise eps: the ``clean`` value x_0 and the ``noise`` eps, both (*batch, d).

    They obey x = signal clean + noise noise. ``fraction`` (*batch, d): where between the small and the large variance
    the kernel lies, on the scale of logarithms (0 small, 1 large; not clipped); None where the head does not say.
    """

    clean: Tensor
    noise: Tensor
    fraction: Tensor | None = None


@runtime_checkable
class Head(Protocol):
    """A denoiser of values of ``dim`` numbers, given a condition."""

    @property
    def dim(self) -> int: ...

    @property
    def null(self) -> Tensor:
        """The condition (c,) that stands for none, for guidance."""
        ...

    def __call__(self, value: Tensor, signal: Tensor, noise: Tensor, condition: Tensor) -> Prediction:
        """``value`` (*batch, d) at one level, ``signal`` and ``noise`` numbers (), ``condition`` (*batch, c)."""
        ...


def guided(
    head: Head, value: Tensor, signal: Tensor, noise: Tensor, condition: Tensor, guidance: float = 1.0
) -> Prediction:
    """The head's prediction under classifier-free guidance: none + guidance (conditional - none), in the noise.

    Ho and Salimans 2207.12598, eq. 6 with scale ``guidance`` = 1 + w. Since the clean value is affine in the noise it
    is guided alike; the variance is the conditional branch's, as in MAR.
    """
    told = head(value, signal, noise, condition)
    if guidance == 1.0:
        return told
    untold = head(value, signal, noise, head.null.expand_as(condition))
    clean, eps = (
        none + guidance * (some - none) for some, none in ((told.clean, untold.clean), (told.noise, untold.noise))
    )
    return Prediction(clean, eps, told.fraction)


@dataclass(frozen=True, eq=False)
class ExactHead:
    """The head that is never wrong: E[x_0 | x] and E[eps | x] for data whose law is known.

    ``data(condition)`` is the Mixture of Gaussians, batch (*batch,), that the data follow given ``condition`` (*batch,
    c). With component k of mean m and covariance C, x has the law N(signal m, signal^2 C + noise^2 I) =: N(signal m,
    S) and x_0 given x and k the mean m + signal C S^-1 (x - signal m); the components' weights are those of x.
    ``error`` is added to every clean value predicted: a head that is wrong by a known amount.
    """

    data: Callable[[Tensor], Mixture]
    null: Tensor
    error: float = 0.0

    @property
    def dim(self) -> int:
        return self.data(self.null).event_shape[0]

    def __call__(self, value: Tensor, signal: Tensor, noise: Tensor, condition: Tensor) -> Prediction:
        log_weights, mean, _ = posterior(self.data(condition), value.double(), signal, noise)
        clean = (log_weights.softmax(-1).unsqueeze(-1) * mean).sum(-2) + self.error
        return Prediction(clean, (value - signal * clean) / noise)


def axes(data: Mixture) -> tuple[Tensor, Tensor]:
    """(turn, variance) of the components: each covariance is turn diag(variance) turn^T; batches that broadcast.

    Members of the batch that share a covariance, because the factor was expanded, are decomposed once.
    """
    if isinstance(data.components, Gaussian):
        return torch.eye(*data.event_shape * 2).to(data.weights), data.components.scale.square()
    factor = data.components.factor
    once = factor[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in factor.stride())]
    turn, spread, _ = torch.linalg.svd(once)
    return turn, spread.square()


def posterior(
    data: Mixture, value: Tensor, signal: Tensor, noise: Tensor, own: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """x_0 given x = signal x_0 + noise eps for a mixture: components' log-weights (*batch, K), means (*batch, K, d) and
    covariances' factors (K, d, d), or of a batch that broadcasts.

    Not normalised: the log-weights are the logarithms of weight times density of x. Computed in each component's own
    axes, where C = U diag(v) U^T: the posterior covariance is U diag(v noise^2 / (signal^2 v + noise^2)) U^T, which
    does not cancel at small noise; the factor returned is a square root of it, U diag(...), and not triangular.
    ``own``: the ``axes`` of the data, where they are known already.
    """
    turn, variance = axes(data) if own is None else own
    total = signal**2 * variance + noise**2
    apart = turn.mT @ (value.unsqueeze(-2) - signal * data.components.mean).unsqueeze(-1)
    apart = apart.squeeze(-1)
    log_density = -0.5 * (apart.square() / total + total.log()).sum(-1)
    mean = data.components.mean + (turn @ (signal * variance / total * apart).unsqueeze(-1)).squeeze(-1)
    root = turn * (variance / total).sqrt().unsqueeze(-2) * noise
    return data.weights.log() + log_density, mean, root
