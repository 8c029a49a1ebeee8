"""Noise that is kept: exponentials raced again and again under different laws, sampled or enumerated.

A race has the winner argmin E_i / w_i, which is i with probability w_i when the E_i are independent standard
exponentials (it is the Gumbel argmax, with E = exp(-Gumbel)). Racing the same exponentials under two laws couples their
winners. A sampled noise holds the numbers. An enumerated one holds what the winners so far have said about them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from distributions.cones import mass
from distributions.distinct import distinct


class Categoricals(Protocol):
    """The part of a tape that an enumerated race needs."""

    def categorical(self, site: str, probs: Tensor) -> Tensor: ...


class Noise(Protocol):
    """One race's exponentials (*batch, V), as a value."""

    def winner(
        self, probs: Tensor, tape: Categoricals, site: str, wanted: Tensor | None = None
    ) -> tuple[Tensor, Noise]:
        """The winner (*batch) under ``probs`` (*batch, V), and the noise given that it won.

        Where ``wanted`` (*batch) is False nothing is decided, and token 0 is answered.
        """
        ...

    def given(self, value: Tensor, probs: Tensor) -> Noise:
        """Fresh noise conditioned on ``value`` (*batch) being its winner under ``probs``: noise after the fact."""
        ...

    def key(self) -> Tensor:
        """All that is known of it (*batch, K): equal keys, equal noise."""
        ...

    def __getitem__(self, index: Any) -> Noise: ...

    def put(self, mask: Tensor, other: Noise) -> Noise:
        """This noise, with ``other`` (M, V), in order, at the M places where ``mask`` (*batch) is True."""
        ...

    def join(self, others: Sequence[Noise], dim: int) -> Noise:
        """This noise and others of its kind, laid end to end along a batch axis."""
        ...


@dataclass(frozen=True, eq=False)
class Exponentials:
    """Sampled noise: the numbers themselves (*batch, V)."""

    value: Tensor

    def winner(
        self, probs: Tensor, tape: Categoricals, site: str, wanted: Tensor | None = None
    ) -> tuple[Tensor, Exponentials]:
        """argmin E / probs; a token of no mass never wins."""
        times = torch.where(probs > 0, self.value / torch.where(probs > 0, probs, 1.0), math.inf)
        first = times.argmin(-1)
        return first if wanted is None else torch.where(wanted, first, 0), self

    def given(self, value: Tensor, probs: Tensor) -> Exponentials:
        """The race ends at a time m ~ Exp(1): E_x = m probs_x, and every other token has lived through m probs_i.

        The exponentials are memoryless, so what is left of those is fresh. A point mass leaves the noise as it is.
        """
        probs = probs / probs.sum(-1, keepdim=True)
        end = self.value.gather(-1, value.unsqueeze(-1))
        lived = end * probs
        return Exponentials(torch.where(_is(value, probs.shape[-1]), lived, lived + self.value))

    def key(self) -> Tensor:
        return self.value

    def __getitem__(self, index: Any) -> Exponentials:
        return Exponentials(self.value[index])

    def put(self, mask: Tensor, other: Noise) -> Exponentials:
        return Exponentials(self.value.index_put((mask,), other.key()))

    def join(self, others: Sequence[Noise], dim: int) -> Exponentials:
        return Exponentials(torch.cat([self.value, *(other.key() for other in others)], dim))


@dataclass(frozen=True, eq=False)
class Zones:
    """Enumerated noise: E_k >= bound[i, k] E_i for all i and k (*batch, V, V), and nothing else is known of E.

    That a token won says that no other arrived before it: each race adds bounds of this form. The probability of a
    winner is a ratio of the masses of two such cones under independent exponentials. The direction of E is uniform on
    the simplex, so the mass of a cone is a volume there, which ``mass`` computes by cutting the simplex up.
    """

    bound: Tensor

    @staticmethod
    def free(shape: Sequence[int]) -> Zones:
        """Nothing known: ``shape`` (*batch, V)."""
        return Zones(torch.eye(shape[-1], dtype=torch.float64).repeat(*shape[:-1], 1, 1))

    def winner(
        self, probs: Tensor, tape: Categoricals, site: str, wanted: Tensor | None = None
    ) -> tuple[Tensor, Zones]:
        vocab = probs.shape[-1]
        mine = torch.ones(probs.shape[:-1], dtype=torch.bool) if wanted is None else wanted
        masses = torch.zeros(probs.shape, dtype=torch.float64)
        masses[..., 0] = 1.0
        known = torch.cat([self.key()[mine], probs[mine].double()], -1)
        if len(known):
            one, group = distinct(known)
            zones, laws = self.bound[mine][one], probs[mine][one].double()
            wins = _won(zones.unsqueeze(1).expand(-1, vocab, -1, -1), *_each(laws))
            found = torch.where(laws > 0, mass(wins), 0.0)
            empty = found.sum(-1, keepdim=True) <= 0  # a zone that exists by rounding only, of mass 1e-16 or less
            masses[mine] = torch.where(empty, laws, found)[group]
        first = tape.categorical(site, masses)
        bound = self.bound.clone()
        bound[mine] = _won(self.bound[mine], first[mine], probs[mine].double())
        return first, Zones(bound)

    def given(self, value: Tensor, probs: Tensor) -> Zones:
        return Zones(_won(self.bound, value, probs.double()))

    def key(self) -> Tensor:
        return self.bound.flatten(-2)

    def __getitem__(self, index: Any) -> Zones:
        return Zones(self.bound[index])

    def put(self, mask: Tensor, other: Noise) -> Zones:
        return Zones(self.bound.index_put((mask,), other.key().reshape(-1, *self.bound.shape[-2:])))

    def join(self, others: Sequence[Noise], dim: int) -> Zones:
        shape = self.bound.shape[-2:]
        parts = [other.key() for other in others]
        return Zones(torch.cat([self.bound, *(part.reshape(*part.shape[:-1], *shape) for part in parts)], dim))


def _each(laws: Tensor) -> tuple[Tensor, Tensor]:
    """Every token (M, V) as a winner, and its law (M, V, V)."""
    vocab = laws.shape[-1]
    return torch.arange(vocab).expand(len(laws), -1), laws.unsqueeze(1).expand(-1, vocab, -1)


def _is(value: Tensor, vocab: int) -> Tensor:
    return torch.arange(vocab, device=value.device) == value.unsqueeze(-1)


def _won(bound: Tensor, winner: Tensor, probs: Tensor) -> Tensor:
    """The bounds (*batch, V, V) once ``winner`` has won under ``probs``: E_k / probs_k >= E_i / probs_i for all k."""
    mine = probs.gather(-1, winner.unsqueeze(-1))
    row = torch.where(mine > 0, probs / torch.where(mine > 0, mine, 1.0), 0.0).clamp(max=1e300)
    place = _is(winner, probs.shape[-1]).unsqueeze(-1)
    return torch.where(place, torch.maximum(bound, row.unsqueeze(-2)), bound)
