"""The line through the means of two Gaussians of one covariance: off it the two laws are one and the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law, at, no_overlap
from distributions.tape import Tape
from verify.records import Draft


@dataclass(frozen=True, eq=False)
class Frame:
    """Coordinates in which draft and target differ along one axis only.

    With L the Cholesky factor of the one covariance and z = L^-1 (value - draft mean), z is N(0, I) under the draft and
    N(delta e, I) under the target, e a unit vector. So s = <z, e>, the ``place`` of a value, is N(0, 1) under the draft
    and N(delta, 1) under the target, what lies across e is N(0, I) under both and independent of s, and log target -
    log draft = delta (s - delta / 2). ``distance`` (*batch) is delta and ``axis`` (*batch, d) is e, the first unit
    vector where delta is 0.
    """

    draft: Gaussian | FullGaussian
    distance: Tensor
    axis: Tensor

    @staticmethod
    def of(name: str, target: Law, draft: Law) -> Frame:
        """The frame of two laws of one batch, for the rule ``name``.

        Raises TypeError for laws that are not Gaussian, or whose covariances differ.
        """
        pair = (target, draft)
        if not all(isinstance(law, (Gaussian, FullGaussian)) for law in pair):
            kinds = sorted({type(law).__name__ for law in pair} - {"Gaussian", "FullGaussian"})
            raise TypeError(f"{name} needs Gaussian laws and got {', '.join(kinds)}; use rejection")
        assert isinstance(draft, (Gaussian, FullGaussian)) and isinstance(target, (Gaussian, FullGaussian))
        both = isinstance(draft, Gaussian) and isinstance(target, Gaussian)
        parts = [law.scale if both else law.factor for law in (draft, target)]  # type: ignore[union-attr]
        if not torch.equal(*parts):
            raise TypeError(f"{name} needs draft and target of one covariance, and theirs differ; use rejection")
        shift = _whiten(draft, target.mean - draft.mean)
        distance = torch.linalg.vector_norm(shift, dim=-1)
        length = distance.unsqueeze(-1)
        any_axis = torch.zeros_like(shift)
        any_axis[..., 0] = 1.0
        return Frame(draft, distance, torch.where(length > 0, shift / torch.where(length > 0, length, 1.0), any_axis))

    def place(self, value: Tensor) -> Tensor:
        """s of each ``value`` (*batch, d), in standard deviations from the draft's mean; (*batch,)."""
        return (_whiten(self.draft, value.double() - self.draft.mean) * self.axis).sum(-1)

    def across(self, value: Tensor) -> Tensor:
        """The squared length (*batch,) of what lies across the line: chi-square with d - 1 degrees under both laws."""
        white = _whiten(self.draft, value.double() - self.draft.mean)
        return (white - (white * self.axis).sum(-1, keepdim=True) * self.axis).square().sum(-1)

    def log_ratio(self, place: Tensor) -> Tensor:
        """log target - log draft at ``place``: exact where densities of both underflow, and 0 for equal laws."""
        return self.distance * (place - self.distance / 2)

    def move(self, value: Tensor, place: Tensor) -> Tensor:
        """Each ``value`` (*batch, d) moved along the line to ``place`` (*batch,); what lies across it stays."""
        step = (place - self.place(value)).unsqueeze(-1) * self.axis
        if isinstance(self.draft, Gaussian):
            return value + self.draft.scale * step
        return value + (self.draft.scale_tril @ step.unsqueeze(-1)).squeeze(-1)

    def __getitem__(self, index: Any) -> Frame:
        return Frame(self.draft[index], at(self.distance, index, 0), at(self.axis, index, 1))


def _whiten(law: Gaussian | FullGaussian, centred: Tensor) -> Tensor:
    if isinstance(law, Gaussian):
        return centred / law.scale
    white: Tensor = torch.linalg.solve_triangular(law.scale_tril, centred.unsqueeze(-1), upper=False)
    return white.squeeze(-1)


Quantile = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Along:
    """The law in ``frame`` whose place is ``quantile(uniform, distance, *parameters)``, and N(0, I) across the line."""

    frame: Frame
    quantile: Quantile
    parameters: tuple[Tensor, ...] = ()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.frame.draft.batch_shape

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.frame.draft.event_shape

    def sample(self, tape: Tape, site: str) -> Tensor:
        uniform = tape.uniform(f"{site}.along", self.batch_shape)
        place = self.quantile(uniform, self.frame.distance, *self.parameters)
        return self.frame.move(self.frame.draft.sample(tape, f"{site}.across"), place)

    def log_prob(self, value: Tensor) -> Tensor:
        """Raises TypeError: this law is drawn from and never weighed."""
        raise TypeError("a law along a line is known by its quantiles and has no log_prob; weigh target and draft")

    def token(self, value: Tensor) -> Tensor:
        return value

    def overlap(self, other: Any) -> Tensor:
        raise no_overlap(self, other)

    def __getitem__(self, index: Any) -> Along:
        return Along(self.frame[index], self.quantile, tuple(at(part, index, 0) for part in self.parameters))


def first_rejected(accept: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of a chain that have a tail among the coins ``accept`` (rows, N), and the node of their first one."""
    count = accept.long().cumprod(1).sum(1)
    rows = torch.nonzero(count < accept.shape[1]).squeeze(1)
    return rows, count[rows]


def sibling_frame(name: str, draft: Draft, target: Law) -> Frame:
    """The frame (rows, 1) of siblings that all have one law.

    Raises TypeError for laws that are not Gaussians of one covariance, and ValueError for a draft that is not all
    siblings or whose siblings have laws of their own.
    """
    if not bool((draft.parent == -1).all()):
        raise ValueError(f"{name} reads siblings; draft with parent -1 everywhere")
    frame = Frame.of(name, target[:, :1], draft.law[:, :1])
    for part in ("mean", "scale" if isinstance(draft.law, Gaussian) else "scale_tril"):
        every = getattr(draft.law, part)
        if not torch.equal(every, every[:, :1].expand_as(every)):
            raise ValueError(f"{name} reads independent draws of one law; draft every sibling from the same law")
    return frame
