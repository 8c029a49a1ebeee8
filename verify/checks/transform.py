"""The probability integral transform: samples of any law with known conditionals become independent uniforms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.special import ndtr

from distributions.categorical import Categorical
from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from distributions.tape import Tape


@dataclass(frozen=True, eq=False)
class Uniform:
    """Independent uniforms on [0, 1): event (size,), one law for all rows. What a transformed sample is tested with."""

    size: int = 1

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.size,)

    def sample(self, tape: Tape, site: str) -> Tensor:
        return tape.uniform(site, (self.size,))

    def log_prob(self, value: Tensor) -> Tensor:
        inside = ((value >= 0) & (value < 1)).all(-1)
        return torch.where(inside, 0.0, -torch.inf).double()

    def token(self, value: Tensor) -> Tensor:
        return value

    def overlap(self, other: Any) -> Tensor:
        if not isinstance(other, Uniform) or other.size != self.size:
            raise TypeError(f"no overlap of Uniform({self.size}) and {type(other).__name__}; compare equal sizes")
        return torch.ones((), dtype=torch.float64)

    def __getitem__(self, index: Any) -> Uniform:
        return self


def uniforms(sample: Tensor, truth: Law, tape: Tape) -> Tensor:
    """Columns (n, m), each uniform on [0, 1] and independent of the others when row i of ``sample`` follows ``truth``.

    Rosenblatt (Annals of Mathematical Statistics 23, 1952): u_j = F(x_j | x_1 .. x_{j-1}). For a Categorical the
    transform is randomised within each atom: u = F(x-) + V P(x), V from the tape. ``truth`` has batch shape () or (n,).
    Raises TypeError for a law whose conditional distribution functions are not known.
    """
    if isinstance(truth, Uniform):
        return sample.double().reshape(len(sample), truth.size)
    if isinstance(truth, Gaussian):
        return _normal((sample.double() - truth.mean) / truth.scale)
    if isinstance(truth, FullGaussian):
        centred = (sample.double() - truth.mean).unsqueeze(-1)
        return _normal(torch.linalg.solve_triangular(truth.scale_tril, centred, upper=False).squeeze(-1))
    if isinstance(truth, Categorical):
        above = truth.probs.cumsum(-1).expand(len(sample), -1).gather(-1, sample.unsqueeze(-1))
        mass = truth.probs.expand(len(sample), -1).gather(-1, sample.unsqueeze(-1))
        return (above - mass * (1.0 - tape.uniform("transform.atom", mass.shape))).clamp(0.0, 1.0)
    raise TypeError(f"no distribution function is known for {type(truth).__name__}; use a two-sample check such as mmd")


def _normal(score: Tensor) -> Tensor:
    level: Tensor = ndtr(score)
    return level
