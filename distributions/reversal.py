"""The exact time reversal of noising: how a denoising chain steps that never errs, from data whose law is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.heads import axes, posterior
from distributions.law import Law, at, event_of, trusted
from distributions.mixture import Mixture
from distributions.schedule import Schedule


@dataclass(frozen=True, eq=False)
class Posterior(Mixture):
    """A Mixture with the logarithms of its weights, ``log_weights`` (*batch, K), which may be below what floats hold.

    A component that all but vanished at one level may be the only one to explain the next: its e^-1000 counts.
    """

    log_weights: Tensor

    def log_prob(self, value: Tensor) -> Tensor:
        each = self.components.log_prob(event_of(self, value).unsqueeze(-2))
        return torch.logsumexp(self.log_weights + each, -1)

    def __getitem__(self, index: Any) -> Posterior:
        part = super().__getitem__(index)
        return trusted(
            Posterior,
            weights=part.weights,
            components=part.components,
            log_weights=at(self.log_weights, index, 1),
        )


@dataclass(frozen=True, eq=False)
class Reversal:
    """The exact time reversal of the forward process from known data: x_{t-1} given x_t has its true law.

    For Gaussian ``data`` every step is Gaussian, with the posterior's own covariance; for a Mixture
    each step is a Mixture. Given x_0, x_{t-1} is N(clean x_0 + current x_t, v I) with the schedule's coefficients and v
    its small variance, 0 at t = 1; x_0 given x_t is ``heads.posterior``. The start is the exact law of x_T. So the
    marginals are the forward ones, x_0 has the data's law, and a ratio of two path densities of two reversals of one
    schedule is the ratio of the data's densities at x_0: the forward kernels are the same and cancel.
    """

    data: Gaussian | FullGaussian | Mixture
    schedule: Schedule

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.data.batch_shape

    @property
    def dim(self) -> int:
        return self.data.event_shape[0]

    @property
    def steps(self) -> int:
        return self.schedule.steps

    def start(self) -> Law:
        return self._single(self._diffused(self.steps))

    def step(self, time: int, value: Tensor) -> Law:
        schedule = self.schedule
        level = schedule.signal[time], schedule.noise[time]
        log_weights, mean, root = posterior(self._mixture, value.double(), *level, self._axes)
        clean, current = schedule.posterior(time)
        spare = schedule.added(time, time - 1) * (schedule.noise[time - 1] / schedule.noise[time]) ** 2
        covariance = clean**2 * root @ root.mT + spare * torch.eye(self.dim).to(root)
        mean = clean * mean + current * value.unsqueeze(-2)
        kernels = FullGaussian(mean, torch.linalg.cholesky(covariance))
        return self._single(Posterior(log_weights.softmax(-1), kernels, log_weights.log_softmax(-1)))

    def __getitem__(self, index: Any) -> Reversal:
        return replace(self, data=self.data[index])

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        return axes(self._mixture)

    @cached_property
    def _mixture(self) -> Mixture:
        if isinstance(self.data, Mixture):
            return self.data
        return Mixture(self.data.mean.new_ones(*self.batch_shape, 1), self.data[..., None])

    def _diffused(self, time: int) -> Mixture:
        data = self._mixture
        signal, noise = self.schedule.signal[time], self.schedule.noise[time]
        factor = data.components.factor
        covariance = signal**2 * factor @ factor.mT + noise**2 * torch.eye(self.dim).to(factor)
        return Mixture(data.weights, FullGaussian(signal * data.components.mean, torch.linalg.cholesky(covariance)))

    def _single(self, law: Mixture) -> Law:
        """The one component of a mixture of one."""
        return law if isinstance(self.data, Mixture) else law.components[..., 0]
