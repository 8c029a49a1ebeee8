"""The protocol of a law, and lifting torch.distributions objects to it."""

from __future__ import annotations

from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor

from distributions.tape import Tape

Kind = TypeVar("Kind")


@runtime_checkable
class Law(Protocol):
    """A batch of probability laws: a frozen dataclass of float64 tensors, batch axes first."""

    @property
    def batch_shape(self) -> tuple[int, ...]: ...

    @property
    def event_shape(self) -> tuple[int, ...]: ...

    def sample(self, tape: Tape, site: str) -> Tensor:
        """One value for each member of the batch: (*batch_shape, *event_shape)."""
        ...

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass or log density, float64; ``value`` is (*any, *event_shape), broadcast against the batch."""
        ...

    def token(self, value: Tensor) -> Tensor:
        """What is emitted of a value: itself, or a path's last point."""
        ...

    def overlap(self, other: Any) -> Tensor:
        """1 - TV, batch-wise. Raises TypeError for a pair with no closed form or quadrature."""
        ...

    def __getitem__(self, index: Any) -> Self:
        """The laws selected by an index of the batch axes."""
        ...


def no_overlap(first: object, second: object) -> TypeError:
    """The error every ``overlap`` raises for a pair it has no formula for."""
    return TypeError(
        f"no closed form or quadrature for the overlap of {type(first).__name__} and {type(second).__name__}; "
        "estimate it by sampling 1 - E[(1 - ratio)+] instead"
    )


def at(parameter: Tensor, index: Any, event_dims: int) -> Tensor:
    """``parameter[index]`` where ``index`` addresses the batch axes and the last ``event_dims`` axes are kept whole."""
    index = index if isinstance(index, tuple) else (index,)
    if not any(item is Ellipsis for item in index):
        index = (*index, ...)
    return parameter[(*index, *(slice(None),) * event_dims)]


def trusted(kind: type[Kind], **fields: Any) -> Kind:
    """A law made of parts of a valid one: nothing is checked again, and no bit changes."""
    law = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(law, name, value)
    return law


def event_of(law: Law, value: Tensor) -> Tensor:
    """``value`` in float64; raises ValueError unless it ends in the event shape, which broadcasting would hide."""
    shape = tuple(value.shape[value.dim() - len(law.event_shape) :])
    if shape != law.event_shape:
        raise ValueError(f"value {tuple(value.shape)} must end in the event shape {law.event_shape} of the law")
    return value.double()


def from_torch(distribution: torch.distributions.Distribution) -> Law:
    """The law of a torch.distributions object: Categorical, Normal, MultivariateNormal, Independent(Normal, 1) and
    MixtureSameFamily of these, with the same batch shape.

    The laws here have an event axis, so a Normal, whose event shape is (), becomes a Gaussian of event shape (1,):
    its values carry a last axis of one. A mixture of categoricals becomes their mean, a Categorical. Raises TypeError,
    naming the class, for any other family.
    """
    from distributions.categorical import Categorical  # the laws import this file
    from distributions.gaussian import FullGaussian, Gaussian
    from distributions.mixture import Mixture

    kinds = torch.distributions
    if isinstance(distribution, kinds.Categorical):
        return Categorical(distribution.probs)
    if isinstance(distribution, kinds.Normal):
        return Gaussian(distribution.loc.unsqueeze(-1), distribution.scale.unsqueeze(-1))
    if isinstance(distribution, kinds.MultivariateNormal):
        return FullGaussian(distribution.loc, distribution.scale_tril)
    name = type(distribution).__name__
    if isinstance(distribution, kinds.Independent):
        base = distribution.base_dist
        if distribution.reinterpreted_batch_ndims == 0:
            return from_torch(base)
        if isinstance(base, kinds.Normal) and distribution.reinterpreted_batch_ndims == 1:
            return Gaussian(base.loc, base.scale)
        name = f"Independent({type(base).__name__}, {distribution.reinterpreted_batch_ndims})"
    if isinstance(distribution, kinds.MixtureSameFamily):
        weights = distribution.mixture_distribution.probs
        parts = from_torch(distribution.component_distribution)
        if isinstance(parts, Categorical):
            return Categorical((weights.double().unsqueeze(-1) * parts.probs).sum(-2))
        if isinstance(parts, (Gaussian, FullGaussian)):
            return Mixture(weights, parts)
        name = f"MixtureSameFamily of {type(parts).__name__}"
    raise TypeError(
        f"no law for {name}; give a Categorical, Normal, MultivariateNormal, Independent(Normal, 1) or a "
        "MixtureSameFamily of these"
    )
