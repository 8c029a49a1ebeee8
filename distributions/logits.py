"""Laws on a finite vocabulary that are given by their logits, and normalised by one pass over them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import at, trusted
from distributions.scratch import scratch
from distributions.tape import Tape

TILE = 1 << 17  # entries that are worked on at once, so many as the cache of a core has room for
TINY = 2.0**-60  # a sum of exponentials this large has lost nothing to underflow, which begins at 2**-126


@dataclass(frozen=True, eq=False)
class Logits:
    """Tokens 0..V-1 with probabilities softmax(scores), ``scores`` (*batch, V); -inf is a token without mass.

    Only ``log_total`` (*batch), the logarithm of the sum of exponentials, is computed on construction: the sum in
    float32, or float64 for scores in float64, its logarithm in float64. Raises ValueError for rows that hold NaN or
    +inf, or nothing but -inf.
    """

    scores: Tensor
    log_total: Tensor = field(init=False)
    _near: Tensor = field(init=False, repr=False)
    _factor: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        total = log_total(self.scores)
        if not bool(torch.isfinite(total).all()):
            raise ValueError("scores must be finite or -inf, and finite somewhere in every row; check the model's head")
        # Scores less the total are taken in the dtype of the scores. What rounding the total to it takes away is given
        # back as a factor: it would be an error of the whole row, and of its mass against another row's.
        near = total.to(torch.promote_types(self.scores.dtype, torch.float32))
        for name, part in {"log_total": total, "_near": near, "_factor": (near - total).exp_().to(near.dtype)}.items():
            object.__setattr__(self, name, part)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.scores.shape[:-1])

    @property
    def event_shape(self) -> tuple[int, ...]:
        return ()

    @property
    def size(self) -> int:
        """V."""
        return self.scores.shape[-1]

    @property
    def probs(self) -> Tensor:
        """The probabilities (*batch, V), computed each time that they are asked for."""
        return (self.scores - self._near.unsqueeze(-1)).exp_().mul_(self._factor.unsqueeze(-1))

    @property
    def device(self) -> torch.device:
        return self.scores.device

    def entries(self, *index: Any, out: Tensor | None = None) -> Tensor:
        """The probabilities that an index of the table (*batch, V) picks: integers for all batch axes, or tensors."""
        row = index[: self._near.dim()]
        return (
            torch.sub(self.scores[index].to(self._near.dtype), self._near[row], out=out).exp_().mul_(self._factor[row])
        )

    def sample(self, tape: Tape, site: str) -> Tensor:
        return tape.categorical(site, self.probs)

    def log_prob(self, value: Tensor) -> Tensor:
        shape = np.broadcast_shapes(self.batch_shape, value.shape)
        scores = self.scores.expand(*shape, self.size).gather(-1, value.expand(shape).unsqueeze(-1)).squeeze(-1)
        return scores.double() - self.log_total

    def token(self, value: Tensor) -> Tensor:
        return value

    def overlap(self, other: Any) -> Tensor:
        """Sum over tokens of the smaller mass."""
        return Categorical(self.probs).overlap(Categorical(other.probs) if isinstance(other, Logits) else other)

    def __getitem__(self, index: Any) -> Logits:
        parts = {name: at(getattr(self, name), index, 0) for name in ("log_total", "_near", "_factor")}
        return trusted(Logits, scores=at(self.scores, index, 1), **parts)


def log_total(scores: Tensor) -> Tensor:
    """log sum exp(scores) over the last axis, float64; NaN or inf for a row that is no law.

    Exponentials lose no relative precision far from 0, so the largest score is taken off only in rows whose sum leaves
    the range of the type: one pass of exp and one of sum, tile by tile of rows, so that no table is written.
    """
    kind = torch.promote_types(scores.dtype, torch.float32)
    rows = scores.reshape(-1, scores.shape[-1])
    total = torch.empty(len(rows), dtype=kind, device=scores.device)
    step = max(1, TILE // rows.shape[-1])
    held = scratch(step * rows.shape[-1], kind).view(step, -1) if scores.device.type == "cpu" else None
    for start in range(0, len(rows), step):
        tile = rows[start : start + step].to(kind)
        powers = torch.exp(tile, out=held[: len(tile)] if held is not None else None)
        torch.sum(powers, -1, out=total[start : start + step])
    logs = total.double().log_()
    out = ~((total > TINY) & (total < torch.inf))
    if bool(out.any()):
        top = rows[out].amax(-1, keepdim=True)
        logs[out] = (rows[out] - top).to(kind).exp().sum(-1).double().log() + top.squeeze(-1).double()
    return logs.reshape(scores.shape[:-1])
