"""The protocol of a law, and lifting torch.distributions objects to it."""

from __future__ import annotations

from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from distributions.tape import Tape


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
    return parameter[(*index, ..., *(slice(None),) * event_dims)] if Ellipsis not in map(_plain, index) else parameter[
        (*index, *(slice(None),) * event_dims)
    ]


def _plain(item: Any) -> Any:
    return None if isinstance(item, Tensor) else item


def from_torch(distribution: torch.distributions.Distribution) -> Law:
    """The law of a torch.distributions object: Categorical, Normal, MultivariateNormal, Independent(Normal) and
    MixtureSameFamily of these. A Normal of batch shape () becomes a one-dimensional law with event shape (1,) only
    through Independent; raises TypeError, naming the object, for any other family.
    """
    raise NotImplementedError
