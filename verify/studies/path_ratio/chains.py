"""How far two chains are apart, as paths and at their end: in closed form, by quadrature, and by sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.heads import Head, Prediction
from distributions.path import Kernel, PathLaw
from distributions.schedule import Schedule, cosine, respaced
from distributions.tape import GeneratorTape
from verify.residual import log_ratio

Interval = tuple[float, float, float]
"""An estimate, and the ends of its 95 % interval."""
WAVES = 16
"""Of a smooth random error."""


def grid(steps: int) -> Schedule:
    """MAR's cosine chain from its 990th level of 1000, where signal^2 is 2.4e-4, in ``steps`` steps.

    From the last level, where it is 2.4e-9, the first step multiplies an error of the predicted noise by 316.
    """
    return respaced(cosine(1000).signal[1:991].square(), steps)


@dataclass(frozen=True, eq=False)
class Wavy:
    """A head whose predicted noise is wrong by ``error`` times a smooth random function of value and level.

    The function is a sum of ``WAVES`` cosines of random frequencies, phases and directions: close to a Gaussian process
    of variance 1 and length scale 1 in x / hypot(signal, noise), and of scale 1 / 3 in the angle of the level.
    """

    head: Head
    error: float
    seed: int = 0

    @property
    def dim(self) -> int:
        return self.head.dim

    @property
    def null(self) -> Tensor:
        return self.head.null

    def __call__(self, value: Tensor, signal: Tensor, noise: Tensor, condition: Tensor) -> Prediction:
        told = self.head(value, signal, noise, condition)
        pace, turn, phase, axis = _waves(self.dim, self.seed)
        argument = value / torch.hypot(signal, noise) @ pace + 3 * torch.atan2(noise, signal) * turn + phase
        wrong = self.error * math.sqrt(2 / WAVES) * argument.cos() @ axis
        return Prediction(told.clean - noise / signal * wrong, told.noise + wrong, told.fraction)


@cache
def _waves(dim: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tape = GeneratorTape(seed)
    pace, turn = tape.normal("pace", (dim, WAVES)), tape.normal("turn", (WAVES,))
    return pace, turn, 2 * math.pi * tape.uniform("phase", (WAVES,)), tape.normal("axis", (WAVES, dim))


@dataclass(frozen=True, eq=False)
class Mistaken:
    """A kernel whose steps are moved by ``error`` times what the same error of the predicted noise would move them:
    of the exact posterior's covariance, and wrong in the mean alone. Steps must be Gaussian.
    """

    kernel: Kernel
    schedule: Schedule
    error: float

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.kernel.batch_shape

    @property
    def dim(self) -> int:
        return self.kernel.dim

    @property
    def steps(self) -> int:
        return self.kernel.steps

    def start(self) -> Any:
        return self.kernel.start()

    def step(self, time: int, value: Tensor) -> FullGaussian:
        law = self.kernel.step(time, value)
        assert isinstance(law, (Gaussian, FullGaussian))
        wrong = self.schedule.posterior(time)[0] * self.schedule.noise[time] / self.schedule.signal[time] * self.error
        return FullGaussian(law.mean - wrong, law.factor)

    def __getitem__(self, index: Any) -> Mistaken:
        return replace(self, kernel=self.kernel[index])


def joint(kernel: Kernel) -> FullGaussian:
    """The law of a whole path (x_T, ..., x_0), as one vector of (T + 1) d numbers, for Gaussian steps linear in x_t.

    With x_{t-1} = A_t x_t + b_t + L_t z the block row of x_{t-1} in the factor is A_t times that of x_t, and L_t on
    the diagonal. A_t, b_t and L_t are read off at zero and the unit vectors. Raises TypeError for other steps,
    ValueError where a step is not linear or its covariance depends on x_t.
    """
    dim, count = kernel.dim, kernel.steps + 1
    points = torch.cat((torch.zeros(1, dim), torch.eye(dim), -2 * torch.ones(1, dim))).double()
    law: Any = kernel.start()
    if not isinstance(law, (Gaussian, FullGaussian)):
        raise TypeError(f"the start is a {type(law).__name__}; estimate this overlap with accepted() instead")
    mean, factor = torch.zeros(count * dim).double(), torch.zeros(count * dim, count * dim).double()
    mean[:dim], factor[:dim, :dim] = law.mean, law.factor
    for place in range(1, count):
        law = kernel.step(kernel.steps - place + 1, points)
        if not isinstance(law, (Gaussian, FullGaussian)):
            raise TypeError(f"a step is a {type(law).__name__}; estimate this overlap with accepted() instead")
        shift = law.mean[0]
        matrix = (law.mean[1 : 1 + dim] - shift).T
        bent = (law.mean[-1] - shift + 2 * matrix.sum(-1)).abs().max()
        if (
            float(bent) > 1e-9 * (1 + float(law.mean.abs().max()))
            or float((law.factor - law.factor[:1]).abs().max()) > 0
        ):
            raise ValueError("a step is not linear in its value; estimate this overlap with accepted() instead")
        old, new = slice((place - 1) * dim, place * dim), slice(place * dim, (place + 1) * dim)
        mean[new] = matrix @ mean[old] + shift
        factor[new] = matrix @ factor[old]
        factor[new, new] = torch.linalg.cholesky(law.factor[0] @ law.factor[0].T)
    return FullGaussian(mean, factor)


def end(law: FullGaussian, dim: int) -> FullGaussian:
    """The marginal law of x_0 of a ``joint``."""
    rows = law.factor[-dim:]
    return FullGaussian(law.mean[-dim:], torch.linalg.cholesky(rows @ rows.T))


def distances(target: Kernel, draft: Kernel) -> tuple[float, float]:
    """(TV of the paths, TV of x_0) of two linear chains. Equal A_t and L_t give 2 Phi(Delta / 2) - 1 for both, and
    unequal ones the quadrature of ``Gaussian.overlap``: each in as many dimensions as it has.
    """
    one, two = joint(target), joint(draft)
    last = end(one, target.dim), end(two, draft.dim)
    return 1 - float(one.overlap(two)), 1 - float(last[0].overlap(last[1]))


def accepted(target: PathLaw, draft: PathLaw, seed: int) -> Interval:
    """E over drafted paths of min(1, target / draft), which is 1 - TV of the paths; ``draft`` is a batch of copies."""
    path = draft.sample(GeneratorTape(seed), "path")
    kept = log_ratio(path, target, draft).clamp(max=0).exp()
    mean, half = float(kept.mean()), 1.96 * float(kept.std()) / math.sqrt(len(kept))
    return mean, mean - half, mean + half
