"""One run of the code under test: the branches it was told to take, and the uniforms it was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np


class Interruption(BaseException):
    """Ends a run from inside. Not an Exception, so that the code under test does not swallow it by accident."""


class NotUnderstood(Interruption):
    """The code did something with a draw that the enumeration has no exact account of."""


class Pruned(Interruption):
    """The run's probability fell below the smallest that is followed."""


@dataclass
class Decision:
    """A branching: where, which branch was taken, the branches' probabilities."""

    site: str
    taken: int
    probs: tuple[float, ...]


@dataclass
class Leaf:
    """One run of the code: the branches prescribed to it, the decisions it met, its probability."""

    prescribed: tuple[int, ...]
    min_mass: float
    decisions: list[Decision] = field(default_factory=list)
    mass: float = 1.0
    failure: Interruption | None = None
    error: float = 0.0
    closed: bool = False
    current: ClassVar[Leaf | None] = None

    def fail(self, failure: Interruption) -> Interruption:
        """Remember the interruption even if the code under test swallows it; to be raised by the caller."""
        self.failure = self.failure or failure
        return failure

    def misunderstand(self, what: str) -> Interruption:
        return self.fail(NotUnderstood(what))

    def decide(self, site: str, probs: Sequence[float]) -> int:
        """The branch taken at ``site``; ``probs`` sum to one. A single possible branch is no decision."""
        if self.closed:
            raise (Leaf.current or self).misunderstand(f"{site}: a draw kept from an earlier call is used again")
        possible = [i for i, mass in enumerate(probs) if mass > 0]
        if len(possible) == 1:
            return possible[0]
        at = len(self.decisions)
        if at < len(self.prescribed):
            taken = self.prescribed[at]
            if taken >= len(probs) or not probs[taken] > 0:
                raise self.misunderstand(f"{site}: the same draws led to different branches; the code keeps a state")
        else:
            taken = self._choose(possible, probs)
            if self.mass * probs[taken] < self.min_mass:
                raise self.fail(Pruned(site))
        self.decisions.append(Decision(site, taken, tuple(probs)))
        self.mass *= probs[taken]
        return taken

    def _choose(self, possible: Sequence[int], probs: Sequence[float]) -> int:
        """The branch to follow first: with the branches' own probabilities, so that a loop that ends, ends here too."""
        # Park and Miller's "minimal standard" generator, stepped once a decision, so that a rerun chooses alike.
        left = pow(48_271, len(self.decisions) + 1, 0x7FFF_FFFF) / 0x7FFF_FFFF
        for branch in possible:
            left -= probs[branch]
            if left < 0:
                return branch
        return max(possible, key=lambda i: probs[i])


class Atom:
    """One uniform on [0, 1), known so far to lie in [low, high). With ``weights`` it has only so many values instead,
    of these probabilities, and the weights of those ruled out become zero.
    """

    __slots__ = ("high", "leaf", "low", "site", "spent", "weights")

    def __init__(self, leaf: Leaf, site: str, weights: np.ndarray[Any, Any] | None = None) -> None:
        self.leaf, self.site, self.weights = leaf, site, weights
        self.low, self.high = 0.0, 1.0
        self.spent = False

    @property
    def fresh(self) -> bool:
        return not self.spent and self.low == 0.0 and self.high == 1.0 and self.weights is None

    def check(self) -> None:
        if self.leaf.closed:
            raise (Leaf.current or self.leaf).misunderstand(
                f"{self.site}: a draw kept from an earlier call is used again"
            )
        if self.spent:
            raise self.leaf.misunderstand(f"{self.site}: the noise of a race is used a second time")

    def below(self, cut: float) -> bool:
        """Is the uniform below ``cut``? Branches if that is open, and remembers the answer."""
        self.check()
        if cut <= self.low:
            return False
        if cut >= self.high:
            return True
        width = self.high - self.low
        chance = (cut - self.low) / width
        if self.leaf.decide(self.site, (1.0 - chance, chance)):
            self.high = cut
            return True
        self.low = cut
        return False

    def among(self, chosen: np.ndarray[Any, Any]) -> bool:
        """For a grid: is the value among the ``chosen`` ones?"""
        self.check()
        assert self.weights is not None
        inside, total = float(self.weights[chosen].sum()), float(self.weights.sum())
        if inside == 0.0 or not self.weights[~chosen].any():
            return inside > 0
        yes = bool(self.leaf.decide(self.site, (1.0 - inside / total, inside / total)))
        self.weights = np.where(chosen == yes, self.weights, 0.0)
        return yes
