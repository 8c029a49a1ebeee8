"""What takes the place of generators made beforehand, of ``float``, and of the functions of ``math``."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any, ClassVar

import torch

from verify.foreign.symbols import Symbol


class _FloatKind(type):
    def __instancecheck__(cls, item: Any) -> bool:
        return isinstance(item, builtins.float)

    def __call__(cls, value: Any = 0.0) -> Any:
        if isinstance(value, torch.Tensor):
            value = value.item()
        return value if isinstance(value, Symbol) else builtins.float(value)


class LazyFloat(metaclass=_FloatKind):
    """``float`` that leaves a symbol as it is."""


class _StandIn:
    """Answers the draws of a generator by their names; refuses what else is asked of it."""

    draws: ClassVar[str]
    kind: ClassVar[str]

    def __init__(self, room: Any) -> None:
        self._room = room

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        room = self.__dict__["_room"]
        answer = getattr(getattr(room, self.draws), name, None)
        return answer if answer is not None else room._refuse(f"{self.kind}.{name} inside the call")


class LazyGenerator(_StandIn):
    """Stands in for a numpy Generator or RandomState."""

    draws, kind = "_numpy", "numpy generator"


class LazyRandom(_StandIn):
    """Stands in for a random.Random."""

    draws, kind = "_stdlib", "random.Random"


def or_symbol(original: Callable[..., Any], method: str) -> Callable[..., Any]:
    """A function of ``math`` that asks a symbol for its own ``method``."""

    def function(value: Any, *rest: Any) -> Any:
        return getattr(value, method)(*rest) if isinstance(value, Symbol) else original(value, *rest)

    return function


def unless_symbol(original: Callable[..., bool], answer: bool) -> Callable[..., bool]:
    """A predicate of ``math`` whose answer is known for every symbol."""
    return lambda value: answer if isinstance(value, Symbol) else original(value)
