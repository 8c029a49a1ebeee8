"""The tape: the only source of randomness, so that one program is sampled, replayed, coupled or enumerated.

Every draw names its *site*. A tape is restricted to some rows of the batch with ``tape[rows]``; a loop that redraws
only its unfinished rows passes that restriction on, so that a tape which keeps a history per row knows whose draw it
is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from distributions.noise import Exponentials, Noise, Zones


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
    total = probs.sum(-1, keepdim=True)
    if not bool(((total > 0) & torch.isfinite(total)).all()) or bool((probs < 0).any()):
        raise ValueError("probs must be non-negative and finite with a positive sum in every row; check the law drawn")
    cumulative = probs.cumsum(-1)
    index = torch.searchsorted(cumulative, uniform.unsqueeze(-1) * cumulative[..., -1:], right=True).squeeze(-1)
    # Rounding may push u * total up to the total itself: fall back to the last index that has mass.
    size = probs.shape[-1]
    last = size - 1 - (probs > 0).flip(-1).to(torch.int8).argmax(-1)
    return torch.minimum(index, last)


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


class NotEnumerable(RuntimeError):
    """A continuous draw was asked of an enumeration."""


class EnumerationExploded(RuntimeError):
    """An enumeration passed its limit of leaves; the message names the site that branched most."""


class RowsDependent(RuntimeError):
    """A run met another draw where its history was made: what one row does depends on the rest of its batch."""


@dataclass(eq=False)
class EnumerationTape:
    """One leaf of the tree of draws in every row: coins and categoricals branch, each row on its own history.

    A row follows its ``history`` (rows, depth; the answers of its past decisions, -1 beyond them). At a decision past
    the history it takes one branch, and every other branch becomes a *sibling*: a history to be run later. Which branch
    is taken first is pseudo-random with the branches' own probabilities, so that a loop which ends with probability
    one also ends here. ``mass`` is the probability of each row's leaf. Siblings below ``min_mass`` are not kept; their
    mass is added to ``dropped`` (rows).
    """

    history: Tensor
    min_mass: float = 0.0
    mass: Tensor = field(init=False)
    dropped: Tensor = field(init=False)
    siblings: list[tuple[Tensor, Tensor]] = field(init=False, default_factory=list)
    branches: dict[str, int] = field(init=False, default_factory=dict)
    _path: Tensor = field(init=False, repr=False)
    _depth: Tensor = field(init=False, repr=False)
    _known: Tensor = field(init=False, repr=False)
    _guide: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows = self.history.shape[0]
        self.mass = torch.ones(rows, dtype=torch.float64)
        self.dropped = torch.zeros(rows, dtype=torch.float64)
        self._path = self.history.clone()
        self._depth = torch.zeros(rows, dtype=torch.long)
        self._known = (self.history >= 0).sum(-1)
        self._guide = torch.Generator().manual_seed(0)

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        raise NotEnumerable(f"site {site!r} draws a uniform, which has no finite set of values; draw a coin instead")

    def normal(self, site: str, shape: Sequence[int]) -> Tensor:
        raise NotEnumerable(f"site {site!r} draws a normal, which has no finite set of values; sample this law instead")

    def race(self, site: str, shape: Sequence[int]) -> Tensor:
        raise NotEnumerable(f"site {site!r} draws an exponential race; ask for noise, whose winners can be enumerated")

    def noise(self, site: str, shape: Sequence[int]) -> Noise:
        return Zones.free(shape)

    def coin(self, site: str, prob: Tensor) -> Tensor:
        return self[torch.arange(self.history.shape[0])].coin(site, prob)

    def categorical(self, site: str, probs: Tensor) -> Tensor:
        return self[torch.arange(self.history.shape[0])].categorical(site, probs)

    def __getitem__(self, rows: Tensor) -> _EnumeratedRows:
        return _EnumeratedRows(self, torch.arange(self.history.shape[0])[rows])

    def _categorical(self, site: str, probs: Tensor, rows: Tensor) -> Tensor:
        probs = probs.double()
        total = probs.sum(-1, keepdim=True)
        if not bool(((total > 0) & torch.isfinite(total)).all()) or bool((probs < 0).any()):
            raise ValueError(
                f"site {site!r}: probabilities must be non-negative with a positive finite sum in every row"
            )
        shape = total.shape[:-1]
        probs = (probs / total).reshape(len(rows), shape[1:].numel(), probs.shape[-1])
        columns = [self._decide(site, probs[:, j], rows) for j in range(probs.shape[1])]
        return torch.stack(columns, -1).reshape(shape) if columns else torch.zeros(shape, dtype=torch.long)

    def _decide(self, site: str, probs: Tensor, rows: Tensor) -> Tensor:
        answer = probs.argmax(-1)
        if not len(rows):
            return answer
        open_ = (probs > 0).sum(-1) > 1  # a draw with one possible answer is no decision
        depth, known = self._depth[rows], self._known[rows]
        past = open_ & (depth < known)
        answer[past] = self._path[rows[past], depth[past]]
        size = probs.shape[-1]
        taken = probs.gather(-1, answer.clamp(max=size - 1).unsqueeze(-1)).squeeze(-1)
        if bool(((answer >= size) | (taken <= 0)).any()):
            raise RowsDependent(
                f"site {site!r} no longer has the answer it had: the draws of a row depend on the other rows of its "
                "batch, or on something that is not on the tape"
            )
        fresh = open_ & (depth >= known)
        if bool(fresh.any()):
            answer[fresh] = torch.multinomial(probs[fresh], 1, generator=self._guide).squeeze(-1)
            self._branch(site, probs[fresh], answer[fresh], rows[fresh])
        self.mass[rows] *= probs.gather(-1, answer.unsqueeze(-1)).squeeze(-1).where(open_, torch.ones(()).double())
        self._depth[rows] += open_.long()
        return answer

    def _branch(self, site: str, probs: Tensor, taken: Tensor, rows: Tensor) -> None:
        depth = self._depth[rows]
        if int(depth.max()) >= self._path.shape[1]:
            self._path = torch.nn.functional.pad(self._path, (0, max(8, self._path.shape[1])), value=-1)
        other = probs > 0
        other.scatter_(-1, taken.unsqueeze(-1), False)
        mass = self.mass[rows].unsqueeze(-1) * probs
        small = other & (mass < self.min_mass)
        self.dropped.index_add_(0, rows, (mass * small).sum(-1))
        row, value = torch.nonzero(other & ~small, as_tuple=True)
        paths = self._path[rows[row]]
        paths[torch.arange(len(row)), depth[row]] = value
        if len(row):
            self.siblings.append((rows[row], paths))
        self.branches[site] = self.branches.get(site, 0) + len(row)
        self._path[rows, depth] = taken


@dataclass(eq=False)
class _EnumeratedRows:
    """Some rows of an EnumerationTape."""

    whole: EnumerationTape
    rows: Tensor

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        return self.whole.uniform(site, shape)

    def normal(self, site: str, shape: Sequence[int]) -> Tensor:
        return self.whole.normal(site, shape)

    def race(self, site: str, shape: Sequence[int]) -> Tensor:
        return self.whole.race(site, shape)

    def noise(self, site: str, shape: Sequence[int]) -> Noise:
        return self.whole.noise(site, shape)

    def coin(self, site: str, prob: Tensor) -> Tensor:
        prob = prob.double().clamp(0.0, 1.0)
        return self.categorical(site, torch.stack((1.0 - prob, prob), -1)).bool()

    def categorical(self, site: str, probs: Tensor) -> Tensor:
        rows = len(self.rows)
        if probs.shape[0] != rows:
            raise ValueError(f"site {site!r} draws {probs.shape[0]} rows on a tape of {rows}; pass tape[rows]")
        turn = earlier(self.rows)  # a row that is named twice draws twice
        answer = torch.zeros(probs.shape[:-1], dtype=torch.long)
        for now in range(int(turn.max()) + 1 if rows else 0):
            mine = turn == now
            answer[mine] = self.whole._categorical(site, probs[mine], self.rows[mine])
        return answer

    def __getitem__(self, rows: Tensor) -> _EnumeratedRows:
        return _EnumeratedRows(self.whole, self.rows[rows])


def enumerate_tape(
    run: Callable[[Tensor, EnumerationTape], Any],
    rows: int,
    *,
    min_mass: float = 0.0,
    max_leaves: int = 2_000_000,
    chunk: int = 65_536,
) -> list[tuple[Tensor, Tensor, Tensor, Any]]:
    """Run every leaf of ``run`` for each of ``rows`` inputs.

    ``run(index, tape)`` receives the input row of every leaf (leaves,) and a tape for as many rows; it must treat rows
    independently. Returns one ``(index, mass, dropped, result)`` for each batch of leaves; the masses of one input row
    and its dropped mass sum to one. Raises EnumerationExploded past ``max_leaves`` leaves and NotEnumerable at a
    continuous draw.
    """
    pending: list[tuple[Tensor, Tensor]] = [(torch.arange(rows), torch.full((rows, 1), -1, dtype=torch.long))]
    batches: list[tuple[Tensor, Tensor, Tensor, Any]] = []
    branches: dict[str, int] = {}
    leaves = 0
    while pending:
        width = max(path.shape[1] for _, path in pending)
        index = torch.cat([which for which, _ in pending])
        paths = torch.cat([torch.nn.functional.pad(p, (0, width - p.shape[1]), value=-1) for _, p in pending])
        pending = [(index[chunk:], paths[chunk:])] if len(index) > chunk else []
        index, paths = index[:chunk], paths[:chunk]
        leaves += len(index)
        if leaves + sum(len(which) for which, _ in pending) > max_leaves:  # every one pending is a leaf to come
            site = max(branches, key=lambda name: branches[name], default="?")
            raise EnumerationExploded(
                f"more than {max_leaves} leaves; site {site!r} branched most: use a smaller vocabulary, a shorter "
                "draft, or a min_mass"
            )
        tape = EnumerationTape(paths, min_mass)
        result = run(index, tape)
        batches.append((index, tape.mass, tape.dropped, result))
        pending += [(index[parent], path) for parent, path in tape.siblings]
        for site, count in tape.branches.items():
            branches[site] = branches.get(site, 0) + count
    return batches
