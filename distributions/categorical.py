"""Laws on a finite vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distributions.law import at, no_overlap, trusted
from distributions.tape import Tape


@dataclass(frozen=True, eq=False)
class Categorical:
    """Tokens 0..V-1 with ``probs`` (*batch, V), normalised on construction.

    Raises ValueError for negative, non-finite or all-zero rows.
    """

    probs: Tensor

    def __post_init__(self) -> None:
        probs = self.probs.double()
        total = probs.sum(-1, keepdim=True)
        if not bool(torch.isfinite(total).all()) or bool((probs < 0).any()) or not bool((total > 0).all()):
            raise ValueError("probs must be finite and non-negative with a positive sum in every row")
        object.__setattr__(self, "probs", probs / total)

    @classmethod
    def stored(cls, probs: Tensor) -> Categorical:
        """The laws of a table as an engine stores it, in its own dtype: nothing is read, checked, divided or copied.

        The rows must sum to 1 up to the rounding of that dtype. What is read later is read as it is: ratios are the
        quotients of the entries in float64, and a residual is the difference of the rows in the table's dtype.
        """
        return trusted(cls, probs=probs)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.probs.shape[:-1])

    @property
    def size(self) -> int:
        """V."""
        return self.probs.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """Of the probabilities."""
        return self.probs.dtype

    @property
    def device(self) -> torch.device:
        return self.probs.device

    @property
    def event_shape(self) -> tuple[int, ...]:
        return ()

    def sample(self, tape: Tape, site: str) -> Tensor:
        return tape.categorical(site, self.probs)

    def log_prob(self, value: Tensor) -> Tensor:
        shape = np.broadcast_shapes(self.batch_shape, value.shape)
        probs = self.probs.expand(*shape, self.probs.shape[-1])
        return probs.gather(-1, value.expand(shape).unsqueeze(-1)).squeeze(-1).double().log()

    def token(self, value: Tensor) -> Tensor:
        return value

    def overlap(self, other: Any) -> Tensor:
        """Sum over tokens of the smaller mass."""
        if not isinstance(other, Categorical):
            raise no_overlap(self, other)
        return torch.minimum(self.probs, other.probs).sum(-1)

    def __getitem__(self, index: Any) -> Categorical:
        return trusted(Categorical, probs=at(self.probs, index, 1))
