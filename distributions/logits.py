"""Laws on a finite vocabulary that are given by their logits, and normalised by one pass over them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import at, trusted
from distributions.scratch import NUMPY, scratch
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

    def __post_init__(self) -> None:
        total = log_total(self.scores)
        if not np.isfinite(total).all():
            raise ValueError("scores must be finite or -inf, and finite somewhere in every row; check the model's head")
        object.__setattr__(self, "log_total", torch.as_tensor(total, device=self.scores.device))

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
        parts = scale(self.log_total.cpu().numpy(), NUMPY[self.dtype])
        near, factor = (torch.as_tensor(part, device=self.device).unsqueeze(-1) for part in parts)
        return (self.scores - near).exp_().mul_(factor)

    @property
    def dtype(self) -> torch.dtype:
        """Of the probabilities: that of the scores, or float32 where they have fewer bits."""
        return torch.promote_types(self.scores.dtype, torch.float32)

    @property
    def device(self) -> torch.device:
        return self.scores.device

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
        return trusted(Logits, scores=at(self.scores, index, 1), log_total=at(self.log_total, index, 0))


def scale(total: np.ndarray, kind: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """``near`` and ``factor`` of ``kind``: the probabilities of that dtype are exp(scores - near) factor.

    ``total``: of Logits, any shape. Scores less the total are taken in ``kind``. What rounding the total to it takes
    away is given back as a factor: it would be an error of the whole row, and of its mass against another row's.
    """
    near = total.astype(kind)
    return near, np.exp(near - total).astype(kind)


def log_total(scores: Tensor) -> np.ndarray:
    """log sum exp(scores) over the last axis, float64; NaN or inf for a row that is no law.

    Exponentials lose no relative precision far from 0, so the largest score is taken off only in rows whose sum leaves
    the range of the type: one pass of exp and one of sum, tile by tile of rows, so that no table is written.
    """
    kind = torch.promote_types(scores.dtype, torch.float32)
    rows = scores.detach().reshape(-1, scores.shape[-1])
    sums = torch.empty(len(rows), dtype=kind, device=scores.device)
    step = max(1, TILE // rows.shape[-1])
    held = None
    if scores.device.type == "cpu":
        held = torch.from_numpy(scratch(step * rows.shape[-1], kind).reshape(step, -1))
    for tile, out in zip(torch.split(rows, step), torch.split(sums, step), strict=True):
        powers = torch.exp(tile.to(kind), out=held[: len(tile)] if held is not None else None)
        torch.sum(powers, -1, out=out)
    total = sums.cpu().double().numpy()
    far = ~((total > TINY) & (total < np.inf))
    with np.errstate(divide="ignore"):
        logs = np.log(total)
    if far.any():
        lost = rows[torch.from_numpy(far).to(rows.device)]
        logs[far] = lost.double().logsumexp(-1).cpu().numpy()
    return np.asarray(logs).reshape(scores.shape[:-1])
