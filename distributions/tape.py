"""The tape: the only source of randomness, so that one program is sampled, replayed, coupled or enumerated.

The kinds that draw, record and replay are here; the one that follows every branch is in ``enumeration``. Every draw
names its *site*. A tape is restricted to some rows of the batch with ``tape[rows]``; a loop that redraws only its
unfinished rows passes that restriction on, so that a tape which keeps a history per row knows whose draw it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from distributions.noise import Exponentials, Noise

NO_LAW = "probs must be non-negative and finite with a positive sum in every row; check the law drawn"


@runtime_checkable
class Tape(Protocol):
    """Named draws. ``shape`` begins with the rows of the batch; all floating values are float64."""

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        """Uniforms on [0, 1)."""
        ...

    def normal(self, site: str, shape: Sequence[int]) -> Tensor:
        """Standard normals."""
        ...

    def coin(self, site: str, prob: Tensor) -> Tensor:
        """Booleans ``uniform < prob``: strict, so probability 0 is never and 1 is always."""
        ...

    def categorical(self, site: str, probs: Tensor) -> Tensor:
        """Indices drawn from the last axis of ``probs`` (rows, ..., V), which need not be normalised."""
        ...

    def race(self, site: str, shape: Sequence[int]) -> Tensor:
        """Standard exponentials, for exponential (Gumbel) races."""
        ...

    def noise(self, site: str, shape: Sequence[int]) -> Noise:
        """Exponentials that are kept and raced more than once; the last axis of ``shape`` is the vocabulary."""
        ...

    def __getitem__(self, rows: Tensor) -> Tape:
        """The same tape for the rows selected by an index or boolean mask of the current rows."""
        ...


def inverse_cdf(probs: Tensor, uniform: Tensor) -> Tensor:
    """The smallest index whose cumulative mass exceeds ``uniform`` times the total; never an index of mass 0.

    ``probs`` (..., V) non-negative, ``uniform`` (...). Raises ValueError where a row has no mass or a bad entry.
    """
    probs = probs.double()
    if uniform.numel() == 1 and uniform.device.type == "cpu":
        return torch.full(uniform.shape, _index(probs.detach().numpy().reshape(-1), uniform.item()))
    if not uniform.numel():
        return torch.zeros(uniform.shape, dtype=torch.long, device=probs.device)
    cumulative = probs.cumsum(-1)
    total = cumulative[..., -1:]
    least, most = (float(bound) for bound in torch.aminmax(total))
    if not (float(probs.amin()) >= 0 and 0 < least <= most < math.inf):  # a NaN is in both
        raise ValueError(NO_LAW)
    index = torch.searchsorted(cumulative, uniform.unsqueeze(-1) * total, right=True).squeeze(-1)
    # Rounding may push u * total up to the total itself: fall back to the last index that has mass.
    size = probs.shape[-1]
    if int(index.max()) == size:
        index = torch.minimum(index, size - 1 - (probs > 0).flip(-1).to(torch.int8).argmax(-1))
    return index


def _index(mass: np.ndarray, uniform: float) -> int:
    """``inverse_cdf`` of one row (V,), by the same sums: a call of numpy costs a fraction of torch's."""
    cumulative = mass.cumsum()
    total = float(cumulative[-1])
    if not (0 < total < math.inf and np.minimum.reduce(mass) >= 0):
        raise ValueError(NO_LAW)
    index = int(cumulative.searchsorted(uniform * total, "right"))
    return index if index < len(mass) else int(mass.nonzero()[0][-1])


def earlier(rows: Tensor) -> Tensor:
    """How often each row of a selection (M,) was named before in it."""
    ordered, order = rows.sort(stable=True)
    return torch.empty_like(rows).index_put((order,), torch.arange(len(rows)) - torch.searchsorted(ordered, ordered))


class _Derived:
    """Coin, categorical and race as functions of ``uniform``; so a recorded tape replayed elsewhere is a coupling."""

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        raise NotImplementedError

    def coin(self, site: str, prob: Tensor) -> Tensor:
        return self.uniform(site, prob.shape) < prob

    def categorical(self, site: str, probs: Tensor) -> Tensor:
        return inverse_cdf(probs, self.uniform(site, probs.shape[:-1]))

    def race(self, site: str, shape: Sequence[int]) -> Tensor:
        return -torch.log1p(-self.uniform(site, shape))

    def noise(self, site: str, shape: Sequence[int]) -> Noise:
        return Exponentials(self.race(site, shape))


@dataclass(eq=False)
class GeneratorTape(_Derived):
    """Draws from a torch generator seeded with ``seed`` on ``device``."""

    seed: int = 0
    device: str = "cpu"
    _generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._generator = torch.Generator(device=self.device).manual_seed(self.seed)

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        return torch.rand(tuple(shape), generator=self._generator, dtype=torch.float64, device=self.device)

    def normal(self, site: str, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self._generator, dtype=torch.float64, device=self.device)

    def __getitem__(self, rows: Tensor) -> GeneratorTape:
        return self

    @property
    def state(self) -> Tensor:
        """Where the tape stands: bytes. Setting it winds a tape of the same device there."""
        return self._generator.get_state()

    @state.setter
    def state(self, place: Tensor) -> None:
        self._generator.set_state(place)


@dataclass(frozen=True)
class Draw:
    """One recorded draw: its site, its kind (``uniform`` or ``normal``) and the values that came out."""

    site: str
    kind: str
    value: Tensor


@dataclass(eq=False)
class RecordingTape(_Derived):
    """Passes draws of another tape on and keeps them in ``draws``, in order."""

    source: Tape
    draws: list[Draw] = field(default_factory=list)

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        return self._keep(site, "uniform", self.source.uniform(site, shape))

    def normal(self, site: str, shape: Sequence[int]) -> Tensor:
        return self._keep(site, "normal", self.source.normal(site, shape))

    def _keep(self, site: str, kind: str, value: Tensor) -> Tensor:
        self.draws.append(Draw(site, kind, value.clone()))
        return value

    def __getitem__(self, rows: Tensor) -> RecordingTape:
        return RecordingTape(self.source[rows], self.draws)


class ReplayError(RuntimeError):
    """The program asked a replay for a draw that the recording does not hold at this place."""


@dataclass(eq=False)
class ReplayTape(_Derived):
    """Answers with recorded draws, bit for bit. Raises ReplayError when the program asks for anything else."""

    draws: Sequence[Draw]
    _cursor: list[int] = field(default_factory=lambda: [0], repr=False)

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        return self._next(site, "uniform", shape)

    def normal(self, site: str, shape: Sequence[int]) -> Tensor:
        return self._next(site, "normal", shape)

    def _next(self, site: str, kind: str, shape: Sequence[int]) -> Tensor:
        at = self._cursor[0]
        if at >= len(self.draws):
            raise ReplayError(f"the recording has {at} draws and {site!r} asks for one more; record the same program")
        draw = self.draws[at]
        if (draw.site, draw.kind, tuple(draw.value.shape)) != (site, kind, tuple(shape)):
            raise ReplayError(
                f"draw {at} was {draw.kind} {draw.site!r} {tuple(draw.value.shape)} and the program now asks for "
                f"{kind} {site!r} {tuple(shape)}; replay the program that was recorded, on the same input"
            )
        self._cursor[0] += 1
        return draw.value.clone()

    def __getitem__(self, rows: Tensor) -> ReplayTape:
        return self
