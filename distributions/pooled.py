"""One weighted sum of a path's noise, with all the other noise fixed: a d-dimensional law inside a path law."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributions.law import at, event_of, no_overlap
from distributions.path import Denoiser
from distributions.preimage import jacobian, preimage
from distributions.tape import Tape

NUDGE, APART = 1e-6, 1e-4
"""How far a value is moved to see how a step answers, and how far the answer may be off the derivative."""


def noises(kernel: Denoiser, path: Tensor) -> Tensor:
    """The standard normals (*batch, T + 1, d) that made a ``path`` of that shape, noisiest first."""
    found = [path[..., 0, :] / kernel.start().scale]
    for time in range(kernel.steps, 0, -1):
        place = kernel.steps - time
        mean, scale = kernel.moments(time, path[..., place, :])
        found.append((path[..., place + 1, :] - mean) / scale)
    return torch.stack(found, -2)


def denoised(kernel: Denoiser, noise: Tensor) -> Tensor:
    """The path (*batch, T + 1, d) that standard normals of that shape make: the inverse of ``noises``."""
    path = [kernel.start().scale * noise[..., 0, :]]
    for time in range(kernel.steps, 0, -1):
        mean, scale = kernel.moments(time, path[-1])
        path.append(mean + scale * noise[..., kernel.steps - time + 1, :])
    return torch.stack(path, -2)


def log_normal(value: Tensor) -> Tensor:
    """The log density of N(0, I) at ``value`` (*batch, d)."""
    return -0.5 * (value.square() + math.log(2 * math.pi)).sum(-1)


def influence(kernel: Denoiser, spread: float) -> Tensor:
    """How far each noise of a path moves x_0 where the data are Gaussian of variance ``spread``: (T + 1,), of length 1.

    There E[x_0 | x_t] has the slope g = signal spread / (signal^2 spread + noise^2), so the mean of a step has the
    slope current + clean g, and the noise of a step reaches x_0 times the slopes of all later steps. Learned variances
    are counted half-way between the small and the large one; only the choice of weights depends on it.
    """
    schedule = kernel.schedule
    fraction = 0.5 if kernel.fraction is None else kernel.fraction
    slope, found = schedule.signal.new_ones(()), []
    for time in range(1, schedule.steps + 1):
        small, large = schedule.log_variances(time)
        found.append((0.5 * (small + fraction * (large - small))).exp() * kernel.temperature * slope)
        clean, current = schedule.posterior(time)
        signal, noise = schedule.signal[time], schedule.noise[time]
        slope = slope * (current + clean * signal * spread / (signal**2 * spread + noise**2))
    found.append(torch.hypot(schedule.signal[-1], schedule.noise[-1]) * slope)
    weights = torch.stack(found[::-1])
    unit: Tensor = weights / torch.linalg.vector_norm(weights)
    return unit


def off_derivative(kernel: Denoiser, path: Tensor) -> float:
    """How far the differences of a step's mean, at the middle point of each ``path`` (rows, T + 1, d), are off its
    derivative: 1e-9 for a head of double precision, and over 1e-3 for one of single precision, which answers in jumps.

    No single row need show it, but the most of a few rows does. Batch (rows,).
    """
    time = (kernel.steps + 1) // 2
    place = path[:, kernel.steps - time]

    def mean(value: Tensor) -> Tensor:
        return kernel.moments(time, value)[0]

    _, slope = jacobian(mean, place)
    difference = (mean(place + NUDGE) - mean(place - NUDGE)) / (2 * NUDGE)
    return float((difference - slope.sum(-1)).abs().max()) if len(path) else 0.0


@dataclass(frozen=True, eq=False)
class PooledNoise:
    """The law of x_0 given all the noise of a path but the sum of it along ``weights``; event (d,).

    Write the noise of a path (x_T first, then that of every step) as eps_k = others_k + weights_k eta with eta = sum of
    weights_k eps_k. For ``weights`` (T + 1,) of length 1, eta ~ N(0, I) and is independent of ``others`` (*batch, T +
    1, d). Given others, x_0 is a differentiable map of eta, so wherever that map is one to one the law of x_0 has the
    density N(eta) / |det d x_0 / d eta|. All weight on x_T and no noise in the steps is the change of variables of a
    deterministic sampler; all weight on the last step is the last Gaussian of the chain.
    """

    kernel: Denoiser
    others: Tensor
    weights: Tensor

    @staticmethod
    def split(kernel: Denoiser, path: Tensor, weights: Tensor) -> tuple[PooledNoise, Tensor]:
        """The law that a drafted ``path`` comes from given its other noise, and its own sum eta (*batch, d)."""
        noise = noises(kernel, path)
        pooled = torch.einsum("k,...kd->...d", weights, noise)
        return PooledNoise(kernel, noise - weights.unsqueeze(-1) * pooled.unsqueeze(-2), weights), pooled

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.kernel.batch_shape

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.kernel.dim,)

    def path(self, pooled: Tensor) -> Tensor:
        """The whole path (*batch, T + 1, d) of eta = ``pooled`` (*batch, d)."""
        return denoised(self.kernel, self.others + self.weights.unsqueeze(-1) * pooled.unsqueeze(-2))

    def sample(self, tape: Tape, site: str) -> Tensor:
        return self.path(tape.normal(site, (*self.batch_shape, self.kernel.dim)))[..., -1, :]

    def slopes(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """x_0 (rows, d) and its Jacobian (rows, d, d) at eta = ``pooled`` (rows, d); batch (rows,).

        Step by step: with J_k the Jacobian of x_k in eta and A that of the step in x_k, J_{k-1} = A J_k + scale weight.
        """
        kernel, eye = self.kernel, torch.eye(self.kernel.dim).to(pooled)
        noise = self.others + self.weights.unsqueeze(-1) * pooled.unsqueeze(-2)
        size = kernel.start().scale
        value, slope = size * noise[:, 0], torch.diag_embed(size * self.weights[0])
        for time in range(kernel.steps, 0, -1):
            place = kernel.steps - time + 1
            scales: list[Tensor] = []

            def step(value: Tensor, time: int = time, place: int = place, scales: list[Tensor] = scales) -> Tensor:
                mean, scale = kernel.moments(time, value)
                scales.append(scale.detach())
                return mean + scale * noise[:, place]

            value, along = jacobian(step, value)
            slope = along @ slope + self.weights[place] * scales[0].unsqueeze(-1) * eye
        return value, slope

    def log_density(self, pooled: Tensor, slope: Tensor) -> Tensor:
        """log of the density that eta = ``pooled`` (*batch, d) gives to its x_0 by a map of Jacobian ``slope`` (*batch,
        d, d) there; -inf where the map reverses its orientation.
        """
        sign, volume = torch.linalg.slogdet(slope)
        return torch.where(sign > 0, log_normal(pooled) - volume, -torch.inf)

    def search(
        self, value: Tensor, start: Tensor, guess: Tensor | None = None, last: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(eta, Jacobian there, whether found) of ``value`` (rows, d); ``start``, ``guess`` and ``last`` as
        ``preimage`` has them. Batch (rows,).
        """

        def image(rows: Tensor, pooled: Tensor) -> Tensor:
            return self[rows].path(pooled)[:, -1]

        return preimage(image, value, guess, start, lambda rows, pooled: self[rows].slopes(pooled), last, 8)

    def invert(self, value: Tensor, guess: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(eta, log density, found) of ``value`` (rows, d), searched from ``guess``; batch (rows,).

        ``found`` is False, and the density zero, where no eta is found or the map reverses its orientation there.
        """
        eta, slope, found = self.search(value, guess)
        log_density = torch.where(found, self.log_density(eta, slope), -torch.inf)
        return eta, log_density, torch.isfinite(log_density)

    def log_prob(self, value: Tensor) -> Tensor:
        """Raises ArithmeticError where no noise is found that leads to a value."""
        flat = event_of(self, value).expand(*self.batch_shape, -1)
        if len(self.batch_shape) != 1 or flat.dim() != 2:
            raise ValueError("the log density is known for one value of each of a batch of rows; flatten the batch")
        _, log_density, found = self.invert(flat, torch.zeros_like(flat))
        if not bool(found.all()):
            raise ArithmeticError(
                f"no noise leads to {int((~found).sum())} of {len(found)} values; use invert() and ask"
            )
        return log_density

    def token(self, value: Tensor) -> Tensor:
        return value

    def overlap(self, other: Any) -> Tensor:
        """Raises TypeError: an expectation under a change of variables has no closed form."""
        raise no_overlap(self, other)

    def __getitem__(self, index: Any) -> PooledNoise:
        return PooledNoise(self.kernel[index], at(self.others, index, 2), self.weights)
