"""Judging a sampler by its draws alone: against a law that is known, or against another sampler."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distributions.law import Law, from_torch
from distributions.tape import GeneratorTape
from verify.checks import Statistic
from verify.checks.sliced import SlicedKolmogorovSmirnov
from verify.engine import count
from verify.engine.batteries import known_law, lines, two_samples
from verify.engine.bounds import certified, shown, shown_between
from verify.engine.conclusion import Evidence, conclude, sees
from verify.engine.escalation import Blocks, Stage, Suspect, escalate, suite
from verify.engine.sequential import ASIDE, Limits, until_decided
from verify.errors import SubjectError, article, name_of
from verify.foreign.plain import isolated, seed_everything
from verify.loader import describe
from verify.progress import track
from verify.records import Verdict
from verify.statistics.held_out import HeldOut
from verify.statistics.transform import uniforms

Sampler = Callable[[int, int], Any]
DELTA = 1e-6
"""One minus the confidence of every certified bound."""
ROWS = 1 << 14
"""Rows of a shard, or fewer where they are slow."""
LONGEST = 2.0
"""Seconds that the sampler may take for a shard."""
Budget = tuple[int, float]
"""Rows of the first stage, and the seconds that it may take; twice the rows where two samples are compared."""
FIRST: dict[str, Budget] = {"quick": (1 << 18, 15.0), "thorough": (1 << 22, 200.0)}


@dataclass(frozen=True, eq=False)
class Drawn:
    """A source: shard k is ``rows`` rows of the sampler, called with a seed of its own, beside the law, or as many rows
    of the target's sampler, called with another. The global generators are seeded apart for every call.
    """

    sampler: Sampler
    target: Law | Sampler
    rows: int
    seed: int = 0
    event: tuple[int, ...] | None = None

    def __call__(self, shard: int) -> tuple[Tensor, Any]:
        place = 2 * ((self.seed * 1_000_003 + shard) % (1 << 30))
        sample = self._call(self.sampler, place, "sampler")
        if isinstance(self.target, Law):
            return sample, self.target
        return sample, self._call(self.target, place + 1, "target")

    def _call(self, draw: Sampler, seed: int, what: str) -> Tensor:
        try:
            with isolated(), torch.no_grad():
                seed_everything(seed)
                found = draw(self.rows, seed)
        except Exception as error:
            raise SubjectError(
                f"the {what} raised {describe(error)} for rows={self.rows}, seed={seed}; make it accept (rows, seed)"
            ) from error
        if not isinstance(found, (Tensor, np.ndarray)):
            kind = "nothing" if found is None else f"a {type(found).__name__}"
            raise SubjectError(f"the {what} returned {kind}; return a tensor of shape (rows, *event)")
        value = torch.as_tensor(found).detach().cpu().clone()
        if value.dim() == 0 or len(value) != self.rows:
            raise SubjectError(f"the {what} returned shape {tuple(value.shape)} for {self.rows} rows; return one each")
        if self.event is not None and value.shape[1:].numel() == math.prod(self.event):
            value = value.reshape(self.rows, *self.event)
        if self.event is not None and tuple(value.shape[1:]) != self.event:
            shape = tuple(value.shape[1:])
            raise SubjectError(f"the {what} returned rows of shape {shape}; return rows of the target's, {self.event}")
        if value.is_complex() or value.dtype == torch.bool:
            raise SubjectError(f"the {what} returned {value.dtype}; return real numbers or token ids")
        return value


@dataclass(frozen=True)
class Draws:
    """A law as a sampler, for laws whose distribution functions are not known."""

    law: Law

    def __call__(self, rows: int, seed: int) -> Tensor:
        index = torch.zeros(rows, dtype=torch.long)
        return self.law.token(self.law[None][index].sample(GeneratorTape(seed), "target"))


def judge_sampler(
    sampler: Sampler,
    target: Any,
    *,
    epsilon: float = 0.01,
    budget: str | Budget = "quick",
    until: float | None = None,
    seconds: float | None = None,
    seed: int = 0,
    metric: str | None = "ks",
    executor: Executor | None = None,
    shard: int | None = None,
) -> Verdict:
    """Whether ``sampler(rows, seed)`` draws what ``target`` is: see ``verify.check_sampler``.

    ``shard``: rows of a call, by default as many as its speed allows.
    """
    began = time.perf_counter()
    name = name_of(sampler)
    with isolated():
        source, blocks = prepared(sampler, target, seed, shard)
        kind = next(iter(blocks))
        suspects = suite(blocks, source)
        cost = _cost(source, suspects)
        tested = lines(list(blocks[kind]), source(0)[0][0].numel())
        scope = f"event {tuple(source(0)[0].shape[1:])}, "
        if until is not None:
            limits = Limits(until, seconds, DELTA)
            evidence, rows = until_decided(
                source, suspects, kind, limits, metric=metric, first=1, columns=tested, executor=executor
            )
            epsilon = until
        else:
            most, time_allowed = FIRST[budget] if isinstance(budget, str) else budget
            most *= 2 if kind == "two samples" else 1
            shards = max(1, int(min(most // source.rows, (seconds or time_allowed) / cost)))
            evidence, rows = _staged(source, suspects, kind, shards, metric, tested, executor)
        scope += f"{rows} rows in calls of {source.rows}, taken to be independent"
    return conclude(
        evidence, epsilon=epsilon, delta=DELTA, subject=name, scope=scope, metric=metric,
        seconds=time.perf_counter() - began,
    )  # fmt: skip


def prepared(sampler: Sampler, target: Any, seed: int, shard: int | None = None) -> tuple[Drawn, Blocks]:
    """The source of its shards, of a size given or that its speed allows, and the checks it is to go through."""
    law = _law(target)
    if law is None:
        source = Drawn(sampler, target, 64, seed)
        blocks: Blocks = {"two samples": two_samples()}
    else:
        source = Drawn(sampler, law, 64, seed, law.event_shape)
        sample, _ = source(0)
        try:
            uniforms(sample, law, GeneratorTape())
            blocks = {"known law": known_law(law)}
        except (TypeError, ArithmeticError):
            source = Drawn(sampler, Draws(law), 64, seed)
            blocks = {"two samples": two_samples()}
    first, truth = source(0)
    if isinstance(truth, Tensor) and truth.shape != first.shape:
        shapes = f"{tuple(first.shape[1:])}, the target of shape {tuple(truth.shape[1:])}"
        raise SubjectError(f"the sampler returns rows of shape {shapes}; return events of one shape")
    if torch.equal(first, source(1)[0]) and bool((first != first[0]).any()):
        raise SubjectError("the sampler returns the same rows for two seeds; draw from `seed` or the global generators")
    each = _fastest(lambda: source(2)) / 64
    rows = shard or 1 << max(8, min(ROWS.bit_length() - 1, int(math.log2(LONGEST / each))))
    return Drawn(sampler, source.target, rows, seed, source.event), blocks


def _law(target: Any) -> Law | None:
    if isinstance(target, torch.distributions.Distribution):
        try:
            target = from_torch(target)
        except TypeError as error:
            raise SubjectError(f"{error}; or pass a function (rows, seed) that draws from it") from error
    if isinstance(target, Law):
        if target.batch_shape != ():
            raise SubjectError(f"the target is a batch {target.batch_shape} of laws; pass one, of batch shape ()")
        return target
    if not callable(target):
        raise SubjectError(f"target is {article(target)}; pass a torch distribution, a law, or a sampler")
    return None


def _cost(source: Drawn, suspects: Sequence[Suspect]) -> float:
    """Seconds that a shard takes, drawn and counted."""
    return _fastest(lambda: count([item.check.statistic for item in suspects], source, 1))


def _fastest(run: Callable[[], object]) -> float:
    """Seconds, of up to three runs: what else the machine does can only add, and would make verdicts differ."""
    times: list[float] = []
    while len(times) < 3 and sum(times) < 1.0:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return max(min(times), 1e-9)


def _staged(
    source: Drawn,
    suspects: tuple[Suspect, ...],
    kind: str,
    shards: int,
    metric: str | None,
    width: int,
    executor: Executor | None,
) -> tuple[Evidence, int]:
    aside = partial(_aside, kind)
    follow = partial(track, label="drawing")
    found = escalate(source, suspects, shards, first=1, aside=aside, executor=executor, follow=follow)
    first, last = found.stages[0], found.stages[-1]
    counted = [(item.check, first.tallies[item.check.statistic]) for item in suspects]
    evidence = Evidence(
        kind,
        tested=first.findings,
        confirmed=tuple(item for suspect, item in last.found if suspect in found.confirmed),
        doubted=tuple(item.check for item in first.findings if item.rejects),
        certificates=certified(counted, metric, DELTA, 1e-3),
        columns=width,
        sees=tuple(filter(None, (sees(item.check, finding) for item, finding in first.found))),
    )
    if found.confirmed:
        if kind == "known law":
            bias = shown(found.earlier, last.tallies, DELTA)
        else:
            bias = shown_between([item.check for item in suspects], found.earlier, last.tallies, DELTA)
        evidence = replace(evidence, shown=bias)
    return evidence, sum(stage.shards for stage in found.stages) * source.rows


def _aside(kind: str, stage: Stage) -> Sequence[Statistic]:
    """What a witness is chosen from: histograms against a law, between two samplers the score that told most."""
    if kind == "known law":
        return ASIDE
    scores = [
        (finding.p_value or 0.0, item.check.statistic)
        for item, finding in stage.found
        if isinstance(item.check, HeldOut)
    ]
    best = [min(scores, key=lambda item: item[0])[1]] if scores else []
    return best + [item.check.statistic for item, _ in stage.found if isinstance(item.check, SlicedKolmogorovSmirnov)]
