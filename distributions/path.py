"""Path laws: a whole denoising trajectory x_T, ..., x_0 as one token, with its exact log-probability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.heads import Head, guided
from distributions.law import Law, at, event_of, no_overlap
from distributions.schedule import Schedule
from distributions.tape import Tape

VARIANCES: Mapping[str, float | None] = {"small": 0.0, "middle": 0.5, "large": 1.0, "learned": None}
"""The ``fraction`` of a ``Denoiser`` by the name of its variance."""


@runtime_checkable
class Kernel(Protocol):
    """A Markov chain from level T to level 0, for a batch of conditions."""

    @property
    def batch_shape(self) -> tuple[int, ...]: ...

    @property
    def dim(self) -> int: ...

    @property
    def steps(self) -> int: ...

    def start(self) -> Law:
        """The law of x_T, batch (*batch,), event (d,)."""
        ...

    def step(self, time: int, value: Tensor) -> Law:
        """The law of x_{t-1} given x_t = ``value`` (*any, *batch, d), for t = ``time`` in T..1."""
        ...

    def __getitem__(self, index: Any) -> Kernel: ...


@dataclass(frozen=True, eq=False)
class Denoiser:
    """The ancestral sampler of a head: x_{t-1} ~ N(clean x_0hat + current x_t, diag(variance) temperature^2).

    The coefficients and the range of variances are the schedule's (Ho et al. 2006.11239, eq. 7); log variance = (1 - f)
    small + f large, with f the ``fraction``, or the head's own where it is None (Nichol and Dhariwal 2102.09672, eq.
    15). x_T ~ N(0, (signal_T^2 + noise_T^2) I), so N(0, I) on a variance-preserving chain wherever it starts.
    ``condition`` (*batch, c). ``guidance``: the scale of classifier-free guidance, 1 for none. ``temperature``
    multiplies the standard deviations of the steps, not of the start, as in MAR.
    """

    head: Head
    schedule: Schedule
    condition: Tensor
    temperature: float = 1.0
    guidance: float = 1.0
    fraction: float | None = None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.condition.shape[:-1])

    @property
    def dim(self) -> int:
        return self.head.dim

    @property
    def steps(self) -> int:
        return self.schedule.steps

    def start(self) -> Gaussian:
        zeros = self.condition.new_zeros((*self.batch_shape, self.dim), dtype=torch.float64)
        level = torch.hypot(self.schedule.signal[-1], self.schedule.noise[-1])
        return Gaussian(zeros, level.expand(self.dim))

    def moments(self, time: int, value: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviations of ``step``, as functions that can be differentiated; both shaped as ``value``.

        Raises ValueError where neither the head nor ``fraction`` says what the variance is.
        """
        schedule = self.schedule
        batch = np.broadcast_shapes(value.shape[:-1], self.condition.shape[:-1])
        value = value.double().expand(*batch, self.dim)
        condition = self.condition.expand(*batch, self.condition.shape[-1])
        told = guided(self.head, value, schedule.signal[time], schedule.noise[time], condition, self.guidance)
        clean, current = schedule.posterior(time)
        small, large = schedule.log_variances(time)
        fraction = told.fraction if self.fraction is None else torch.full_like(value, self.fraction)
        if fraction is None:
            raise ValueError("the head predicts no variance; give fraction, 0 for the small one to 1 for the large one")
        scale = (0.5 * (small + fraction.double() * (large - small))).exp() * self.temperature
        return clean * told.clean.double() + current * value, scale

    def step(self, time: int, value: Tensor) -> Gaussian:
        """As ``Kernel.step``; raises ValueError as ``moments`` does."""
        return Gaussian(*self.moments(time, value))

    def __getitem__(self, index: Any) -> Denoiser:
        return replace(self, condition=at(self.condition, index, 1))


@dataclass(frozen=True, eq=False)
class PathLaw:
    """The law of a trajectory (x_T, ..., x_0), event (T + 1, d), noisiest first; its token is x_0.

    log density = log start(x_T) + sum over t = T..1 of log N(x_{t-1}; kernel at x_t): the product of the kernels on the
    path's own points, in logarithms, so that neither small variances nor long chains under- or overflow.

    Without ``last_noise`` x_0 is the mean of the last kernel, as the released samplers of diffusion heads have it. Then
    a path has no density, two such laws are mutually singular, and ``log_prob`` raises ValueError.
    """

    kernel: Kernel
    last_noise: bool = True

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.kernel.batch_shape

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.kernel.steps + 1, self.kernel.dim)

    def sample(self, tape: Tape, site: str) -> Tensor:
        path = [self.kernel.start().sample(tape, f"{site}.{self.kernel.steps}")]
        for time in range(self.kernel.steps, 0 if self.last_noise else 1, -1):
            path.append(self.kernel.step(time, path[-1]).sample(tape, f"{site}.{time - 1}"))
        if not self.last_noise:
            last = self.kernel.step(1, path[-1])
            if not isinstance(last, (Gaussian, FullGaussian)):
                raise TypeError(f"a {type(last).__name__} has no mean to end at; keep last_noise for this kernel")
            path.append(last.mean)
        return torch.stack(path, -2)

    def log_prob(self, value: Tensor) -> Tensor:
        value = event_of(self, value)
        if not self.last_noise:
            raise ValueError("a path whose last step adds no noise has no density; set last_noise to True")
        total = self.kernel.start().log_prob(value[..., 0, :])
        for time in range(self.kernel.steps, 0, -1):
            place = self.kernel.steps - time
            total = total + self.kernel.step(time, value[..., place, :]).log_prob(value[..., place + 1, :])
        return total

    def token(self, value: Tensor) -> Tensor:
        return value[..., -1, :]

    def overlap(self, other: Any) -> Tensor:
        """Raises TypeError: an expectation over paths has no closed form."""
        raise no_overlap(self, other)

    def __getitem__(self, index: Any) -> PathLaw:
        return replace(self, kernel=self.kernel[index])
