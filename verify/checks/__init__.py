"""Checks of a sampler: one file, one check. What is counted (a statistic) adds up; what is concluded comes last."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor

from distributions.tape import Tape
from verify.records import CheckClaim, Finding


@dataclass(frozen=True, eq=False)
class Tally:
    """Additive sufficient statistics of ``n`` units: every field adds, so that counts of any shards merge by ``+``.

    Fields are numbers, tensors whose shape does not depend on the sample's size, or anything else that defines ``+``.
    The tally of two samples is the sum of theirs, up to rounding. Raises TypeError for tallies of another kind, and
    ValueError for tensors of another shape: these are not of one statistic.
    """

    n: int

    def __add__(self, other: Self) -> Self:
        if type(other) is not type(self):
            raise TypeError(f"a {type(self).__name__} and a {type(other).__name__} do not add; merge tallies of a kind")
        return replace(self, **{item.name: self._sum(item.name, other) for item in fields(self)})

    def _sum(self, name: str, other: Self) -> Any:
        mine, theirs = getattr(self, name), getattr(other, name)
        if isinstance(mine, Tensor) and mine.shape != theirs.shape:
            raise ValueError(f"{name} has shapes {tuple(mine.shape)} and {tuple(theirs.shape)}; merge one statistic's")
        return mine + theirs


class Statistic(Hashable, Protocol):
    """What is counted, in one pass and constant memory. Checks with equal statistics share the pass."""

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> Tally:
        """The tally of one batch. ``truth`` is what it is held against: a law of batch shape () or (n,), the target's
        own draws, or nothing where ``sample`` is a trace that has its laws with it. Draws come from ``tape``.
        """
        ...


class Check(ABC):
    """A frozen dataclass whose fields are its settings."""

    claim: ClassVar[CheckClaim]

    @property
    @abstractmethod
    def statistic(self) -> Statistic:
        """What must be counted for it."""

    @abstractmethod
    def judge(self, tally: Any, alpha: float) -> Finding:
        """The test at level ``alpha`` of what was counted. The finding leaves verifier, scenario and seed to
        ``battery.stamp``.
        """

    def __call__(self, sample: Any, truth: Any, alpha: float, tape: Tape) -> Finding:
        """Count one batch, and judge it."""
        return self.judge(self.statistic(sample, truth, tape), alpha)
