"""Finds what a function can reach: its globals, closures, defaults, the attributes of what it is bound to."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Slot:
    """A place that holds a value, and how to put another there."""

    value: Any
    put: Callable[[Any], None]


def slots(fn: Any, *, depth: int = 5) -> Iterator[Slot]:
    """Every slot within ``depth`` steps of ``fn``: globals that its code names, cells, defaults, attributes, items."""
    seen: set[int] = set()
    pending: list[tuple[Any, int]] = [(fn, depth)]
    while pending:
        item, left = pending.pop()
        if id(item) in seen or left < 0:
            continue
        seen.add(id(item))
        for slot in _around(item):
            yield slot
            if left and _holds(slot.value):
                pending.append((slot.value, left - 1))


def _holds(value: Any) -> bool:
    """Worth looking inside: functions, instances of classes written in Python, small containers."""
    if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
        return True
    if isinstance(value, (list, tuple, dict)):
        return len(value) <= 64
    if isinstance(value, types.ModuleType):
        return False
    if isinstance(value, type):
        return value.__module__ not in _LIBRARIES and not value.__module__.startswith(_PREFIXES)
    return hasattr(value, "__dict__") and type(value).__module__.split(".")[0] not in _LIBRARIES


_LIBRARIES = frozenset(
    {"builtins", "torch", "numpy", "random", "typing", "abc", "enum", "collections", "functools", "secrets"}
)
_PREFIXES = ("torch.", "numpy.")


def _around(item: Any) -> Iterator[Slot]:
    if isinstance(item, functools.partial):
        for part in (item.func, item.args, item.keywords):
            yield Slot(part, _fixed)
    elif isinstance(item, types.MethodType):
        yield Slot(item.__func__, _fixed)
        yield Slot(item.__self__, _fixed)
    elif isinstance(item, types.FunctionType):
        names = _names(item.__code__)
        for name in names & item.__globals__.keys():
            yield _item(item.__globals__, name)
            module = item.__globals__[name]
            if isinstance(module, types.ModuleType) and module.__name__.split(".")[0] not in _LIBRARIES:
                for attribute in names & vars(module).keys():
                    yield _item(vars(module), attribute)
        for cell in item.__closure__ or ():
            try:
                yield Slot(cell.cell_contents, functools.partial(setattr, cell, "cell_contents"))
            except ValueError:
                continue  # a cell not filled yet
        if item.__defaults__:
            for place, value in enumerate(item.__defaults__):
                yield Slot(value, functools.partial(_put_default, item, place))
        for name in item.__kwdefaults__ or {}:
            yield _item(item.__kwdefaults__, name)
        if wrapped := getattr(item, "__wrapped__", None):
            yield Slot(wrapped, _fixed)
        yield from _attributes(item)
    elif isinstance(item, dict):
        for key in list(item):
            yield _item(item, key)
    elif isinstance(item, list):
        for place in range(len(item)):
            yield _item(item, place)
    elif isinstance(item, tuple):
        for value in item:
            yield Slot(value, _fixed)
    else:
        yield from _attributes(item)
        if not isinstance(item, type):
            for base in type(item).__mro__:
                if base.__module__.split(".")[0] not in _LIBRARIES:
                    yield Slot(base, _fixed)


def _attributes(item: Any) -> Iterator[Slot]:
    for name in list(getattr(item, "__dict__", {})):
        value = item.__dict__[name]
        yield Slot(value.__func__ if isinstance(value, (staticmethod, classmethod)) else value,
                   functools.partial(setattr, item, name))  # fmt: skip


def _item(container: Any, key: Any) -> Slot:
    return Slot(container[key], functools.partial(container.__setitem__, key))


def _put_default(function: types.FunctionType, place: int, value: Any) -> None:
    defaults = list(function.__defaults__ or ())
    defaults[place] = value
    function.__defaults__ = tuple(defaults)


def _fixed(value: Any) -> None:
    raise TypeError("this slot cannot hold another value")


def _names(code: types.CodeType) -> set[str]:
    """The global names a function's code mentions, nested functions included."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found
