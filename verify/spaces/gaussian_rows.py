"""Calling a continuous sampler: many rows of one pair of laws, with every source of randomness seeded and restored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from distributions.tape import GeneratorTape
from verify.errors import SubjectError
from verify.foreign.plain import seed_everything
from verify.loader import describe
from verify.spaces.gaussian_pairs import Pair
from verify.statistics.trace import Trace, same

Sampler = Callable[[Tensor, Distribution, Distribution], Any]
SMALL_CALLS = (1, 2, 3, 17)
"""Sizes of the small calls, where code that mishandles the batch axis shows itself."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Outputs on one pair (or on several, for ``columns`` and ``call`` only): ``drafted`` and ``emitted`` (n, dim), the
    ``call`` (n,) that each row belongs to, counted from 0, and its ``place`` (n,) there.
    """

    pair: Pair
    drafted: Tensor
    emitted: Tensor
    call: Tensor
    place: Tensor

    @cached_property
    def finite(self) -> bool:
        return bool(torch.isfinite(self.emitted).all())

    @cached_property
    def columns(self) -> Tensor:
        return self.pair.columns(self.emitted)

    @cached_property
    def coordinates(self) -> tuple[Tensor, Tensor]:
        """Those of the drafts and of the outputs, (n, 3) each."""
        return self.pair.coordinates(self.drafted), self.pair.coordinates(self.emitted)

    @cached_property
    def accepted(self) -> Tensor:
        return same(self.emitted, self.drafted)

    @cached_property
    def trace(self) -> Trace:
        """As rounds of one node: a row is kept if its output is its draft, and emits one token."""
        return Trace.single(self.drafted, self.emitted, self.pair.draft, self.pair.target, self.call)


@dataclass(frozen=True, eq=False)
class Subject:
    """A sampler under test, the dtype it is called in, and the processor seconds after which a run calls it no more."""

    fn: Sampler
    dtype: torch.dtype = torch.float64
    patience: float = float("inf")

    def call(self, drafted: Tensor, pair: Pair) -> Tensor:
        """One call on ``drafted`` (rows, dim), which is copied first. Raises SubjectError for anything but a real
        floating tensor of the same shape.
        """
        draft, target = pair.distributions(self.dtype)
        given = drafted.to(self.dtype, copy=True)
        where = f"draft_value of shape {tuple(given.shape)}, {self.dtype}, on the problem {pair.name!r}"
        try:
            with torch.no_grad():
                emitted = self.fn(given, draft, target)
        except Exception as error:
            raise SubjectError(
                f"the function raised {describe(error)} for {where}; make it accept fn(draft_value, draft, target)"
            ) from error
        if not isinstance(emitted, (Tensor, np.ndarray)):
            kind = "nothing" if emitted is None else f"a {type(emitted).__name__}"
            raise SubjectError(f"the function returned {kind} for {where}; return a tensor of shape (rows, dim)")
        emitted = torch.as_tensor(emitted).detach().cpu()
        if emitted.shape != drafted.shape:
            raise SubjectError(
                f"the function returned shape {tuple(emitted.shape)} for {where}; return one row of dim numbers a draft"
            )
        if not emitted.is_floating_point():
            raise SubjectError(f"the function returned {emitted.dtype} for {where}; return floating numbers")
        # A view of memory that the function keeps and overwrites would change after it was judged.
        return emitted.clone()

    def run(self, pair: Pair, sizes: Sequence[int], seed: int) -> Rows:
        """Calls of the given sizes in order, or as many of them as ``patience`` allows."""
        seed_everything(seed)
        deadline = time.process_time() + self.patience
        tape = GeneratorTape(4 * seed)
        drafted, emitted, call, place = [], [], [], []
        for number, size in enumerate(sizes):
            law = pair.draft[None][torch.zeros(size, dtype=torch.long)]
            drafted.append(law.sample(tape, "draft").to(self.dtype))
            emitted.append(self.call(drafted[-1], pair))
            call.append(torch.full((size,), number))
            place.append(torch.arange(size))
            if time.process_time() > deadline:
                break
        return Rows(pair, *(torch.cat(parts) for parts in (drafted, emitted, call, place)))


def adapt(fn: Sampler, pair: Pair, seed: int) -> Subject:
    """The function in the precision it can be called in: float64, or float32 where it mixes that with its own draws.

    Raises SubjectError, with the message of the first attempt, where neither works.
    """
    subject = Subject(fn)
    try:
        subject.run(pair, (3, 17), seed)
    except SubjectError as error:
        cause = str(error.__cause__).lower()
        if not any(word in cause for word in ("dtype", "scalar type", "float64", "double")):
            raise
        single = Subject(fn, torch.float32)
        try:
            single.run(pair, (3, 17), seed)
        except SubjectError:
            raise error from error.__cause__
        return single
    return subject


def seconds_per_row(subject: Subject, pair: Pair, seed: int) -> tuple[float, float]:
    """Processor seconds of a call, and of each of its rows: from calls of 17 rows and of 1024, or fewer if slow."""

    def fastest(rows: int) -> float:
        """Of up to three runs: what else the machine does can only add to the time of one."""
        times: list[float] = []
        while len(times) < 3 and sum(times) < 0.2:
            start = time.process_time()
            subject.run(pair, (rows,), seed)
            times.append(time.process_time() - start)
        return min(times)

    few, rows = fastest(17), 64
    many = fastest(rows)
    if many < 0.25:
        rows = 1024 if many < 0.02 else 256
        many = fastest(rows)
    return few, max(0.0, many - few) / (rows - 17)


def call_sizes(rows: int) -> list[int]:
    """Small calls of each size, then large ones, ``rows`` or a little more in all."""
    repeats = min(24, max(1, rows // 256))
    large = max(1, min(4096, rows // 8))
    return [*SMALL_CALLS * repeats, *[large] * -(-max(0, rows - sum(SMALL_CALLS) * repeats) // large)]
