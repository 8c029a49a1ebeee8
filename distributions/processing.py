"""From logits to the law that is sampled: guidance, mask, top-k, temperature, softmax, top-p, always in this order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distributions.canvas import Logits
from distributions.categorical import Categorical


@dataclass(frozen=True, eq=False)
class Processing:
    """How logits become probabilities. As it stands it is the plain softmax.

    1. guidance s (Ho and Salimans 2207.12598): z = s (conditional - unconditional) + unconditional; 1 is none
    2. ``mask`` (V,), True where a token may occur: z = -inf elsewhere
    3. ``top_k``: z = -inf where z < the k-th largest; ties with it stay, so more than k tokens may be left
    4. ``temperature``: z / T; 0 is the limit, uniform over the largest
    5. softmax, in float64
    6. ``top_p`` (nucleus, Holtzman et al. 1904.09751): 0 for a token if those more probable hold ``top_p`` already

    Raises ValueError for a top_k below 1, a negative temperature, a top_p outside (0, 1], a mask that allows nothing.
    """

    guidance: float = 1.0
    mask: Tensor | None = None
    top_k: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be 1 or more, and is {self.top_k}; leave it out to keep every token")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 or more and finite, and is {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, and is {self.top_p}")
        if self.mask is not None and not bool(self.mask.any()):
            raise ValueError("mask allows no token; it is True where a token may occur")

    def __call__(self, conditional: Tensor, unconditional: Tensor | None = None) -> Tensor:
        """Probabilities (..., V) of logits (..., V); ``unconditional`` of the same shape, where there is guidance.

        Raises ValueError where guidance has no unconditional logits.
        """
        logits = conditional.double()
        if self.guidance != 1:
            if unconditional is None:
                raise ValueError(f"guidance {self.guidance} needs the unconditional logits as well")
            base = unconditional.double()
            logits = self.guidance * (logits - base) + base
        if self.mask is not None:
            logits = logits.masked_fill(~self.mask, -math.inf)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, -1).values[..., -1:]
            logits = logits.masked_fill(logits < least, -math.inf)
        # The largest is taken off first, or a small temperature would overflow.
        logits = logits - logits.max(-1, keepdim=True).values
        if self.temperature == 0:
            return (logits == 0).double() / (logits == 0).sum(-1, keepdim=True)
        return self._nucleus((logits / self.temperature).softmax(-1))

    def _nucleus(self, probs: Tensor) -> Tensor:
        if self.top_p == 1:
            return probs
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        kept = ordered.masked_fill(ordered.cumsum(-1) - ordered >= self.top_p, 0.0)
        kept = kept / kept.sum(-1, keepdim=True)
        return kept.gather(-1, order.argsort(-1))


@dataclass(frozen=True, eq=False)
class Processed:
    """The ``Model`` whose laws are a logits model's after ``processing``.

    Its state is the model's state and, under guidance, that of the same tokens without their condition. The law that a
    draft is labelled with and the one it is verified against are then processed alike, which losslessness needs.
    """

    model: Logits
    processing: Processing

    def start(self, rows: int, condition: Any = None) -> tuple[Any, ...]:
        """``rows`` empty sequences, under ``condition`` and, if there is guidance, under none."""
        conditions = (condition,) if self.processing.guidance == 1 else (condition, None)
        return tuple(self.model.start(rows, each) for each in conditions)

    def law(self, state: tuple[Any, ...], value: Tensor | None = None, parent: Tensor | None = None) -> Categorical:
        """Batch (rows, N + 1), as in ``Model.law``."""
        return Categorical(self.processing(*(self.model.logits(each, value, parent) for each in state)))

    def extend(self, state: tuple[Any, ...], value: Tensor, length: Tensor) -> tuple[Any, ...]:
        """The state after the first ``length`` (rows,) tokens of ``value``."""
        return tuple(self.model.extend(each, value, length) for each in state)

    def select(self, state: tuple[Any, ...], rows: Tensor) -> tuple[Any, ...]:
        """The states of the selected rows."""
        return tuple(self.model.select(each, rows) for each in state)
