"""Certified lower bounds on a bias: an event chosen on one sample and counted on a fresh one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

from verify.checks.excess_acceptance import exceeds

Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Witness(Generic[Sample]):
    """An event of which the target, or every lossless rule, has probability at most ``mass``.

    ``event`` maps a sample to booleans (units,), independent units. ``words`` is a sentence with places for ``found``
    and ``mass``; ``snippet`` is code that computes the units as ``event``, given ``fn``, ``draft`` and ``target``.
    ``joint``: the units are whole calls, so the bias is that of their rows jointly.
    """

    words: str
    event: Callable[[Sample], Tensor]
    mass: float
    snippet: str = ""
    joint: bool = False


@dataclass(frozen=True)
class Bias(Generic[Sample]):
    """What a witness found on a fresh ``sample``: its frequency, and by how much the law exceeds ``mass`` at least."""

    witness: Witness[Sample]
    sample: Sample
    found: float
    lower: float

    def __str__(self) -> str:
        return self.witness.words.format(found=self.found, mass=self.witness.mass)


def measure(witnesses: Iterable[tuple[Witness[Sample], Sample]], delta: float) -> list[Bias[Sample]]:
    """The witnesses counted on samples that did not choose them, largest certified bias first.

    TV >= P(event) - mass for every event. All bounds hold together at confidence 1 - ``delta`` (Clopper-Pearson, a
    share of ``delta`` each); the largest is therefore a bound as well.
    """
    pairs = list(witnesses)
    found = []
    for witness, sample in pairs:
        units = witness.event(sample)
        hits, n = int(units.sum()), len(units)
        if n:
            lower = exceeds(hits, n, witness.mass, delta / len(pairs))
            found.append(Bias(witness, sample, hits / n, lower))
    return sorted(found, key=lambda bias: (bias.lower, bias.found - bias.witness.mass), reverse=True)


@dataclass(frozen=True)
class Interval:
    """An interval (low, high] of the unit line, or with ``inside`` false the rest of it."""

    low: float
    high: float
    inside: bool

    @property
    def mass(self) -> float:
        return self.high - self.low if self.inside else 1 - (self.high - self.low)

    def holds(self, column: Tensor) -> Tensor:
        within = (column > self.low) & (column <= self.high)
        return within if self.inside else ~within


def heaviest_interval(column: Tensor) -> tuple[Interval, float]:
    """The interval, or complement of one, whose frequency in ``column`` (n,) exceeds its uniform mass most, and the
    excess: Kuiper's statistic, up to 1/n. Half-lines are among them.
    """
    ordered = np.sort(column.numpy())
    n = len(ordered)
    # The gap F_n(x) - x is largest at a point of the sample and smallest just below one; it is 0 at both ends.
    above = np.concatenate(([0.0], np.arange(1, n + 1) / n - ordered))
    below = np.concatenate(([0.0], np.arange(n) / n - ordered))
    points = np.concatenate(([0.0], ordered))
    top, bottom = int(above.argmax()), int(below.argmin())
    first, last = sorted((float(points[bottom]), float(points[top])))
    interval = Interval(first, last, inside=points[bottom] <= points[top])
    return interval, float(above[top] - below[bottom])
