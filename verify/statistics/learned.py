"""Checks that learn what to look for: settings found on one sample, evidence counted on another."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

import numpy as np
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify import checks
from verify.checks import Check


class Learner(ABC):
    """A frozen dataclass, ready without arguments, whose fields are how it learns."""

    @abstractmethod
    def fit(self, sample: Tensor, truth: Tensor | Law, tape: Tape) -> Check:
        """The check that looks for what distinguishes the rows of a pilot ``sample`` (n, *event) from as many of
        ``truth``. It is valid on every sample that is independent of the pilot: learn on the first shards, count on
        the others. Raises ValueError for a pilot that is too small.
        """


@dataclass(frozen=True, eq=False)
class Learned:
    """Settings that were learned, tensors and bytes among them, compared by value: what is sent to another process and
    comes back is equal to what was sent.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Learned) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Hashable, ...]:
        return type(self), *(_hashable(getattr(self, item.name)) for item in fields(self))


def _hashable(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        rows: np.ndarray = value.detach().cpu().numpy()
        return str(rows.dtype), rows.shape, rows.tobytes()
    key: Hashable = value
    return key


def learners() -> dict[str, Learner]:
    """Every learner by the name of its file in the folder of checks, with the settings it has by itself."""
    found = {}
    for entry in pkgutil.iter_modules(checks.__path__):
        module = import_module(f"{checks.__name__}.{entry.name}")
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Learner) and kind.__module__ == module.__name__:
                if kind is not Learner:
                    found[entry.name] = kind()
    return found
