"""The room in which unmodified code runs while every draw it makes is answered from a leaf of an enumeration."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import io
import math
import os
import queue
import random
import secrets
import time
import types
import uuid
from collections.abc import Callable
from time import process_time
from typing import Any, ClassVar

import numpy as np
import torch

from verify.foreign import numpy_draws, reach
from verify.foreign.leaf import Leaf
from verify.foreign.stand_ins import LazyFloat, LazyGenerator, LazyRandom, or_symbol, unless_symbol
from verify.foreign.torch_draws import TorchDraws
from verify.foreign.watch import Generators, audited, state_of

_MATH = {"log": "log", "log2": "log2", "log10": "log10", "log1p": "log1p", "exp": "exp", "expm1": "expm1",
         "sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "fabs": "__abs__", "pow": "__pow__",
         "trunc": "__trunc__"}  # fmt: skip
_CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time")
_SEEDS = ("manual_seed", "seed", "set_rng_state")
_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random)
_METHODS = (types.BuiltinMethodType, types.MethodType)
_GLOBAL = (np.random.mtrand._rand, random._inst)


class Room:
    """Answers the draws of ``fn`` while open. ``leaf`` is the run in progress; ``escapes`` what was not answered.

    ``shim_float``: also give the function's module a ``float`` that keeps a draw lazy, for code that writes
    ``float(torch.rand(1))``. ``deep``: watch every generator that the garbage collector knows, not the global
    ones alone.
    """

    open_room: ClassVar[Room | None] = None

    def __init__(self, fn: Any, shim_float: bool = False, deep: bool = True) -> None:
        self.fn = fn
        self.leaf = Leaf((), 0.0)
        self.precisions: set[torch.dtype] = set()
        self.escapes: list[str] = []
        self._shim_float, self._deep = shim_float, deep
        self._torch = TorchDraws(self)
        self._numpy = numpy_draws.NumpyDraws(self._torch)
        self._stdlib = numpy_draws.StdlibDraws(self._torch)
        self._undo: list[Callable[[], object]] = []
        self._seen: dict[int, tuple[Any, Any, Any, set[int]]] = {}
        self._run = 0
        self._shift = 0
        self._stack: contextlib.ExitStack | None = None

    # --- one run -----------------------------------------------------------------------------------------------
    def run(self, call: Callable[[], Any], leaf: Leaf) -> Any:
        """Call it once on this leaf. What it raises passes through; an interruption that it swallowed is raised."""
        self.leaf = Leaf.current = leaf
        self._run += 1
        self._shift += 86_413  # clocks jump between runs, so that a seed taken from one shows
        self._torch.begin()
        self._ear.open = True
        try:
            with self._torch:
                result = call()
        finally:
            self._ear.open = False
            leaf.closed = True
            Leaf.current = None
        if leaf.failure is not None:
            raise leaf.failure
        return result

    def see(self, generator: Any) -> None:
        """A torch generator passed to a draw: it must have been made once, outside the call, and not seeded since."""
        if generator is torch.default_generator:
            return
        known = self._seen.get(id(generator))
        if known is None:
            state = state_of(generator)
            rivals = [first for _, first, _, _ in self._seen.values()] + [self._global]
            if state in rivals:
                self.escapes.append("two generators start from the same state, or one is made anew in each call")
            original = generator.get_state()
            generator.manual_seed(0x5EED_0000 + len(self._seen))
            self._seen[id(generator)] = (generator, state, state_of(generator), {self._run})
            self._undo.append(lambda: generator.set_state(original))
        else:
            if state_of(generator) != known[2]:
                self.escapes.append("a generator is seeded inside the call")
            known[3].add(self._run)

    @staticmethod
    def now() -> float:
        """The processor time of this process, for deadlines: a busy machine must not change a verdict. It is the real
        clock, also while those that the code under test sees are shifted.
        """
        return process_time()

    # --- opening and closing -----------------------------------------------------------------------------------
    def __enter__(self) -> Room:
        if Room.open_room is not None:
            raise RuntimeError("a function under test may not itself run a check; check one function at a time")
        Room.open_room = self
        self._stack = contextlib.ExitStack()
        try:
            self._open(self._stack)
        except BaseException:
            self._close()
            raise
        return self

    def _open(self, stack: contextlib.ExitStack) -> None:
        self._global = state_of(torch.default_generator)
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        self._perturb()
        table = self._table()
        self._rebind(table)
        for owner, name, replacement in self._patches:
            original = getattr(owner, name)
            setattr(owner, name, replacement)
            self._undo.append(functools.partial(setattr, owner, name, original))
        self._before = Generators.snapshot(self._deep)
        self._ear = stack.enter_context(audited())
        self._ear.open = False

    def __exit__(self, *error: object) -> None:
        self.escapes += [f"the code {event}" for event in dict.fromkeys(self._ear.events)]
        self.escapes += [f"{name} was drawn from or seeded" for name in self._before.changed()]
        if any(len(runs) == 1 for *_, runs in self._seen.values()):
            self.escapes.append("a generator is made anew in each call")
        self._close()

    def _close(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        if self._stack is not None:
            self._stack.close()
        Room.open_room = None

    def _perturb(self) -> None:
        """Put the global generators where no seed puts them, so that seeding inside a call shows as a change."""
        torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
        self._undo.append(lambda: torch.set_rng_state(torch_state))
        self._undo.append(lambda: np.random.set_state(numpy_state))
        self._undo.append(lambda: random.setstate(python_state))
        odd = int.from_bytes(os.urandom(4), "little")
        torch.manual_seed(odd)
        np.random.seed(odd)
        random.seed(odd)

    # --- what stands in for what ------------------------------------------------------------------------------
    def _refuse(self, what: str) -> Callable[..., Any]:
        def refused(*args: Any, **kwargs: Any) -> Any:
            raise self.leaf.misunderstand(what)

        return refused

    def _table(self) -> dict[int, Any]:
        """Original object -> replacement, and in ``_patches`` the module attributes to set."""
        patches: list[tuple[Any, str, Any]] = []
        for name in dir(np.random):
            original = getattr(np.random, name)
            if name.startswith("_") or isinstance(original, type) or not callable(original):
                continue
            if name in ("default_rng",):
                patches.append((np.random, name, lambda seed=None: self._generator(seed)))
            elif name in ("get_state", "get_bit_generator"):
                continue
            else:
                answer = getattr(self._numpy, name, None)
                patches.append((np.random, name, answer or self._refuse(f"numpy.random.{name}")))
        patches.append((np.random, "RandomState", lambda seed=None: self._generator(seed)))
        for name in numpy_draws.random_names():
            answer = getattr(self._stdlib, name, None)
            patches.append((random, name, answer or self._refuse(f"random.{name}")))
        patches.append((random, "seed", self._refuse("random.seed inside the call")))
        patches.append((random, "Random", lambda x=None: self._random(x)))
        patches.append((random, "_urandom", self._refuse("the operating system's randomness (SystemRandom, secrets)")))
        patches += [(os, name, self._refuse(f"os.{name}")) for name in ("urandom", "getrandom") if hasattr(os, name)]
        patches += [(uuid, name, self._refuse(f"uuid.{name}")) for name in ("uuid1", "uuid4")]
        patches += [
            (secrets, name, self._refuse(f"secrets.{name}"))
            for name in ("choice", "randbelow", "randbits", "token_bytes", "token_hex", "token_urlsafe", "SystemRandom")
        ]
        for module in (torch, torch.random):
            for name in (*_SEEDS, "fork_rng"):
                if hasattr(module, name):
                    patches.append((module, name, self._refuse(f"torch.{name} inside the call")))
        for name, method in _MATH.items():
            patches.append((math, name, or_symbol(getattr(math, name), method)))
        for name in ("isnan", "isinf", "isfinite"):
            patches.append((math, name, unless_symbol(getattr(math, name), name == "isfinite")))
        for name in _CLOCKS:
            patches.append((time, name, self._shifted(getattr(time, name), name.endswith("_ns"))))
        for owner in (concurrent.futures.ThreadPoolExecutor, concurrent.futures.ProcessPoolExecutor):
            patches.append((owner, "submit", self._noticed(owner.submit, "hands work to another thread or process")))
        patches.append((queue.Queue, "put", self._noticed(queue.Queue.put, "hands work to another thread")))
        for kind in (torch.jit.ScriptFunction, torch.jit.ScriptModule):
            patches.append((kind, "__call__", self._refuse_draws(kind.__call__)))
        patches.append((torch, "from_numpy", self._from_numpy))
        self._patches = patches
        return {id(getattr(owner, name)): new for owner, name, new in patches if not isinstance(owner, type)}

    def _refuse_draws(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A compiled function reads storages without asking: it must not be given a symbol."""

        @functools.wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self._torch.lazy:
                raise self.leaf.misunderstand("a scripted function called after a draw")
            return original(*args, **kwargs)

        return guarded

    def _from_numpy(self, array: Any) -> torch.Tensor:
        return self._torch.tensor_of(array) if array.dtype == object else torch.as_tensor(array)

    def _noticed(self, original: Callable[..., Any], what: str) -> Callable[..., Any]:
        @functools.wraps(original)
        def noticed(*args: Any, **kwargs: Any) -> Any:
            self._ear.hear(what)
            return original(*args, **kwargs)

        return noticed

    def _shifted(self, clock: Callable[[], Any], nanoseconds: bool) -> Callable[[], Any]:
        return lambda: clock() + self._shift * (10**9 if nanoseconds else 1)

    def _generator(self, seed: Any) -> Any:
        if seed is not None:
            raise self.leaf.misunderstand("a numpy generator seeded inside the call")
        return LazyGenerator(self)

    def _random(self, seed: Any) -> Any:
        if seed is not None:
            raise self.leaf.misunderstand("a random.Random seeded inside the call")
        return LazyRandom(self)

    def _rebind(self, table: dict[int, Any]) -> None:
        """Names the function reaches that are draws themselves, or generators made beforehand."""
        lazy: dict[int, Any] = {}
        states: list[Any] = []
        if self._shim_float:
            self._give_float()
        for slot in list(reach.slots(self.fn)):
            replacement = table.get(id(slot.value))
            owner = getattr(slot.value, "__self__", None) if isinstance(slot.value, _METHODS) else None
            if replacement is None and isinstance(slot.value, _GENERATORS):
                replacement = self._lazy(slot.value, lazy, states)
            elif replacement is None and isinstance(owner, _GENERATORS) and owner not in _GLOBAL:
                stand_in = self._lazy(owner, lazy, states)
                replacement = None if stand_in is None else getattr(stand_in, slot.value.__name__)
            if replacement is None:
                continue
            try:
                slot.put(replacement)
            except (TypeError, AttributeError):
                continue  # the generator's state tells, should it be drawn from
            self._undo.append(functools.partial(slot.put, slot.value))

    def _lazy(self, generator: Any, known: dict[int, Any], states: list[Any]) -> Any:
        """The stand-in of a generator made beforehand; None, and an escape, for one whose draws are its own affair."""
        if id(generator) in known:
            return known[id(generator)]
        if type(generator) not in _GENERATORS:
            self.escapes.append(f"a {type(generator).__name__} draws in a way of its own")
            return None
        state = state_of(generator)
        if state in states:
            self.escapes.append("two generators start from the same state")
        states.append(state)
        known[id(generator)] = (LazyRandom if isinstance(generator, random.Random) else LazyGenerator)(self)
        return known[id(generator)]

    def _give_float(self) -> None:
        scope = getattr(self.fn, "__globals__", None) or getattr(
            getattr(self.fn, "__func__", None), "__globals__", None
        )
        if scope is None:
            return
        if "float" in scope:
            self._undo.append(functools.partial(scope.__setitem__, "float", scope["float"]))
        else:
            self._undo.append(functools.partial(scope.pop, "float", None))
        scope["float"] = LazyFloat
