"""The models that are decoded, whole paths and all, and the drafters that they are decoded with."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from distributions.images import Images
from distributions.mar import draw
from distributions.model import Model
from distributions.path import PathLaw
from distributions.tape import GeneratorTape
from verify.decode import Trace, decode
from verify.imaging.run import Decoded
from verify.imaging.setting import Forgetful, Setting, begun
from verify.verifier import Verifier


@dataclass(frozen=True, eq=False)
class Shown(PathLaw):
    """A law of paths that emits the path itself."""

    def token(self, value: Tensor) -> Tensor:
        return value


@dataclass(frozen=True, eq=False)
class Whole:
    """A model whose tokens are their paths, so that what was decoded can be held against the law it should have."""

    model: Any

    def start(self, rows: int, condition: Any = None) -> Any:
        return self.model.start(rows, condition)

    def law(self, state: Any, value: Tensor | None = None, parent: Tensor | None = None) -> Shown:
        """The law of the model, which shows its paths."""
        law = self.model.law(state, value, parent)
        return Shown(law.kernel, law.last_noise)

    def extend(self, state: Any, value: Tensor, length: Tensor) -> Any:
        return self.model.extend(state, value, length)

    def select(self, state: Any, rows: Tensor) -> Any:
        return self.model.select(state, rows)


@dataclass(frozen=True, eq=False)
class Misled:
    """A drafter that is told the class after the one that is drawn."""

    model: Any

    def start(self, rows: int, condition: Any = None) -> Any:
        if isinstance(condition, Tensor):
            return self.model.start(rows, (condition + 1).remainder(10))
        return self.model.start(rows, type(condition)(condition.order, (condition.condition + 1).remainder(10)))

    def law(self, state: Any, value: Tensor | None = None, parent: Tensor | None = None) -> Any:
        return self.model.law(state, value, parent)

    def extend(self, state: Any, value: Tensor, length: Tensor) -> Any:
        return self.model.extend(state, value, length)

    def select(self, state: Any, rows: Tensor) -> Any:
        return self.model.select(state, rows)


@dataclass(frozen=True, eq=False)
class Subject:
    """A pair of models of images; its drafters by name."""

    name: str
    images: Images
    target: Any
    small: Any

    @staticmethod
    def of(setting: Setting) -> Subject:
        """The models of a setting."""
        target, small = setting.models
        return Subject(setting.model, setting.images, target, small)

    @cached_property
    def drafters(self) -> Mapping[str, Model[Any]]:
        """``small``; ``another class``, the small one misled; ``untrained`` weights; ``none``, the target itself."""
        network = draw(copy.deepcopy(self.small.network), GeneratorTape(9))
        untrained = type(self.small)(network, self.small.sampler)
        forgetful: Any = Forgetful(self.target)
        return {"small": self.small, "another class": Misled(self.small), "untrained": untrained, "none": forgetful}


@dataclass(frozen=True)
class Job:
    """A rule by name, and how it is run. ``verifier`` None: the target draws every token itself."""

    rule: str
    verifier: Verifier | None
    draft_length: int = 4
    prefill: float = 0.0
    batch: int = 64
    drafter: str = "small"

    @property
    def told(self) -> str:
        """Its name, which is no other job's."""
        run = f"{self.draft_length} drafted, {self.prefill:g} filled, {self.batch} at once"
        return f"{self.rule}, {run}, {self.drafter}"

    @property
    def exact(self) -> bool:
        """Whether the rule claims to be."""
        return self.verifier is None or self.verifier.claim.exact


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch that was decoded: what ``verify.imaging`` makes of it, its ``paths`` (rows, N, T + 1, d) and what they
    were drawn for.
    """

    decoded: Decoded
    paths: Tensor
    condition: Any


def batches(subject: Subject, job: Job, images: int, seed: int) -> Iterator[Batch]:
    """``images`` in batches, the last one short. Every batch has a tape of its own."""
    from verify.verifiers.coalescing import Coalescing

    length = subject.images.length
    target: Any = Whole(subject.target)
    for number, first in enumerate(range(0, images, job.batch)):
        rows, tape = min(job.batch, images - first), GeneratorTape((seed << 20) + number)
        condition, place, label = begun(subject.target, rows, first, length, tape)
        rule = job.verifier or Coalescing()
        filled = length if job.verifier is None else math.ceil(round(job.prefill * length, 9))
        start, drafter = time.perf_counter(), subject.drafters[job.drafter]
        with torch.no_grad():
            trace = decode(target, drafter, rule, job.draft_length, length, tape, rows, condition, filled)
        took, paths = time.perf_counter() - start, trace.tokens
        trace = Trace(paths[..., -1, :], trace.lengths, trace.kept, trace.log_accept)
        yield Batch(Decoded(trace, place, label, took), paths, condition)


def tokens(subject: Subject, job: Job, images: int, seed: int) -> Tensor:
    """Images as tokens (images, N, d) in raster order."""
    return torch.cat([part.decoded.tokens for part in batches(subject, job, images, seed)])


Source = Callable[[str, int], Subject]


def shipped(name: str, steps: int) -> Subject:
    """The models that ship, by DATA.KIND, on a chain of so many steps."""
    return Subject.of(Setting(name, steps=steps))
