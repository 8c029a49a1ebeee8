"""Enumeration: every leaf of the tree of draws, each with its probability, so that a program's law is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distributions.noise import Noise, Zones
from distributions.tape import earlier


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
