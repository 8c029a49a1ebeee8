"""Looks out for randomness that did not come from the tape.

Four nets, each of which alone spoils an ``exact`` verdict: the states of every generator that can be found, before and
after; Python's audit events (threads, processes, devices, sockets); the seeding functions; and, in ``runs.py``, a
second run of every leaf, which must come out the same.
"""

from __future__ import annotations

import gc
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

_EVENTS = {
    "_thread.start_new_thread": "starts a thread",
    "_thread.start_joinable_thread": "starts a thread",
    "subprocess.Popen": "starts a process",
    "os.fork": "forks",
    "os.forkpty": "forks",
    "os.exec": "starts a process",
    "os.posix_spawn": "starts a process",
    "os.system": "starts a process",
    "socket.connect": "opens a connection",
    "ctypes.dlopen": "loads a foreign library",
    "ctypes.dlsym": "looks up a foreign function",
}
_DEVICES = ("/dev/random", "/dev/urandom", "/dev/hwrng")


@dataclass
class Ear:
    """What was heard. Only events of the thread that made it count, and only while it is ``open``."""

    events: list[str] = field(default_factory=list)
    open: bool = True
    thread: int = field(default_factory=threading.get_ident)

    def hear(self, event: str) -> None:
        if self.open and threading.get_ident() == self.thread:
            self.events.append(event)


_ears: list[Ear] = []
_hooked = False


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _ears:
        return
    if event in _EVENTS:
        _ears[-1].hear(_EVENTS[event])
    elif event == "open" and args and str(args[0]) in _DEVICES:
        _ears[-1].hear(f"reads {args[0]}")


@contextmanager
def audited() -> Iterator[Ear]:
    """Hears what the code inside does that may bring in randomness from elsewhere."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_audit)  # cannot be removed; it does nothing while nobody listens
        _hooked = True
    ear = Ear()
    _ears.append(ear)
    try:
        yield ear
    finally:
        _ears.remove(ear)


def state_of(generator: Any) -> Any:
    """A generator's state, comparable with ``==``."""
    if isinstance(generator, torch.Generator):
        return bytes(generator.get_state().numpy().tobytes())
    if isinstance(generator, np.random.Generator):
        return repr(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return repr(generator.get_state(legacy=False)["state"]["key"].tobytes()) + repr(
            generator.get_state(legacy=False)["state"]["pos"]
        )
    if isinstance(generator, np.random.BitGenerator):
        return repr(generator.state)
    if isinstance(generator, random.Random):
        return hash(generator.getstate())
    raise TypeError(f"{type(generator).__name__} is no generator that is known here")


_KINDS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)


@dataclass
class Generators:
    """The states of the global generators, and of every generator object the garbage collector knows."""

    states: list[tuple[str, Any, Any]] = field(default_factory=list)

    @staticmethod
    def snapshot(deep: bool = False) -> Generators:
        """The global generators; with ``deep`` all others too, which takes some tens of milliseconds."""
        found: dict[int, tuple[str, Any]] = {
            0: ("torch", torch.default_generator),
            1: ("numpy.random", np.random.mtrand._rand),
            2: ("random", random._inst),
        }
        if deep:
            for item in gc.get_objects():
                if issubclass(type(item), _KINDS) and type(item).__module__ != __package__:
                    found.setdefault(id(item), (f"a {type(item).__name__}", item))
        known = [(name, item, state) for name, item in found.values() if (state := _state(item)) is not None]
        return Generators(known)

    def changed(self) -> list[str]:
        """The names of those whose state differs now."""
        return sorted({name for name, item, state in self.states if _state(item) != state})


def _state(generator: Any) -> Any:
    try:
        return state_of(generator)
    except (NotImplementedError, TypeError, AttributeError, ValueError):
        return None  # a SystemRandom has no state; it is caught by its name


@dataclass
class ImportWatch:
    """What a module drew while it was imported."""

    draws: list[str] = field(default_factory=list)


@contextmanager
def watch_import() -> Iterator[ImportWatch]:
    """Notes whether the code inside, a module being loaded, draws from a global generator, a device or a process.

    A value drawn at import is a constant of every later call: no enumeration of the calls can see it vary.
    """
    watch = ImportWatch()
    before = Generators.snapshot()
    with audited() as ear:
        yield watch
    watch.draws += [f"draws from {name} at import" for name in before.changed()]
    watch.draws += [f"{event} at import" for event in dict.fromkeys(ear.events) if "reads /dev" in event]
