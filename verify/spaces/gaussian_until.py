"""A third-party sampler of Gaussian laws, run until its bound is as small as one asks for."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor

from verify.checks.anderson_darling import AndersonDarling
from verify.checks.betting import Betting
from verify.checks.chi_square import ChiSquare
from verify.checks.ks import KolmogorovSmirnov
from verify.engine.conclusion import conclude
from verify.engine.escalation import suite
from verify.engine.sequential import SECONDS, Limits, share, until_decided
from verify.foreign.followed import NotCoupled
from verify.foreign.plain import isolated
from verify.records import Verdict
from verify.spaces.gaussian import DELTA, judge_gaussian
from verify.spaces.gaussian_coupling import couple
from verify.spaces.gaussian_pairs import Pair, pairs
from verify.spaces.gaussian_rows import Sampler, Subject, adapt
from verify.statistics.histogram import TransformHistogram
from verify.statistics.transform import Uniform

CHUNK, LARGEST = 16_384, 1 << 20
"""Rows of each pair in the first run beside the exact rule, and in the largest; each run is twice the one before."""
SHARD = 4096
"""Rows of each pair in a shard, where nothing can be coupled."""
APART = 10**7
"""Between the seeds of the quick verdict and those of what follows."""


def judge_gaussian_until(
    fn: Sampler, *, until: float, seconds: float | None, seed: int = 0, dim: int = 1, covariance: str = "equal"
) -> Verdict:
    """The quick verdict of ``judge_gaussian``; and if that is not ``lossy``, rows until the bound is ``until``, on the
    total variation where the function could be coupled with an exact rule, else on the Kolmogorov-Smirnov distance.

    Rows are added until the ``seconds`` are spent or somebody interrupts: ``inconclusive`` then, with what was found.
    """
    began = time.perf_counter()
    first = judge_gaussian(fn, dim=dim, covariance=covariance, budget="quick", seed=seed)
    if first.status == "lossy" or (first.bias_upper <= until and first.status == "lossless"):
        return first
    limits = Limits(until, (seconds if seconds is not None else SECONDS) - (time.perf_counter() - began), DELTA)
    offered = [pair for pair in pairs(dim, covariance) if pair.overlap < 1 - 1e-12]
    with isolated():
        subject = adapt(fn, offered[0], seed)
        if first.evidence == "coupling":
            found = _coupled(first, subject, offered, limits, seed)
        else:
            found = _sampled(first, subject, offered, limits, seed)
    return replace(found, seconds=time.perf_counter() - began)


def _coupled(first: Verdict, subject: Subject, offered: Sequence[Pair], limits: Limits, seed: int) -> Verdict:
    """Runs beside the exact rule, each with fresh draws, and one bound of all of them: look j spends 1 / (j (j + 1)) of
    the error, whatever made one look.
    """
    deadline = time.process_time() + (limits.seconds or 0.0)
    odd, rows, size, look, bound = [0] * len(offered), [0] * len(offered), CHUNK, 0, 1.0
    try:
        while bound > limits.epsilon and (left := deadline - time.process_time()) > 0:
            look += 1
            found = couple(subject, offered, size, left, DELTA, seed * APART + look)
            for place, item in enumerate(found.findings):
                odd[place] += round(item.statistic * item.n)
                rows[place] += item.n
            part = DELTA * share(look) / len(offered)
            bound = max(
                float(proportion_confint(bad, n, alpha=2 * part, method="beta")[1])
                for bad, n in zip(odd, rows, strict=True)
            )
            print(
                f"n = {min(rows):.3g} of each pair, {sum(odd)} differ, bound {bound:.3g}", file=sys.stderr, flush=True
            )
            size = min(2 * size, LARGEST)
    except KeyboardInterrupt:
        print("interrupted: the verdict so far", file=sys.stderr, flush=True)
    except NotCoupled as reason:
        return replace(first, status="inconclusive", notes=(*first.notes, f"no longer coupled: the function {reason}"))
    if bound >= first.bias_upper:
        return replace(first, status="inconclusive", needs=_rows(odd, rows, limits.epsilon, len(offered)))
    note = f"run beside the exact rule on {min(rows)} rows or more of each pair, of which {sum(odd) or 'none'} differ"
    decided = bound <= limits.epsilon
    return replace(
        first,
        status="lossless" if decided else "inconclusive",
        bias_upper=bound,
        needs="" if decided else _rows(odd, rows, limits.epsilon, len(offered)),
        notes=(note, *first.notes[1:]),
    )


def _rows(odd: Sequence[int], rows: Sequence[int], epsilon: float, pairs_: int) -> str:
    wanted = math.ceil(math.log(pairs_ / (DELTA * share(20))) / epsilon)
    worst = max((bad / n for bad, n in zip(odd, rows, strict=True) if n), default=0.0)
    text = f"{wanted} rows of each pair without a mismatch certify tv <= {epsilon:g}"
    return text + (f"; {worst:.2g} of the rows differ, and no number certifies less than that" if worst else "")


@dataclass(frozen=True, eq=False)
class Columns:
    """A source: shard k is the transforms of fresh rows of every pair, beside one another."""

    subject: Subject
    offered: tuple[Pair, ...]
    seed: int

    def __call__(self, shard: int) -> tuple[Tensor, Any]:
        place = self.seed * APART + len(self.offered) * shard + 1000
        with isolated():
            every = [self.subject.run(pair, (SHARD,), place + k).columns for k, pair in enumerate(self.offered)]
        columns = torch.cat(every, -1)
        return columns, Uniform(columns.shape[-1])


def _sampled(first: Verdict, subject: Subject, offered: Sequence[Pair], limits: Limits, seed: int) -> Verdict:
    source = Columns(subject, tuple(offered), seed)
    # The radii among the columns are no independent columns: no pairs, and none among the witnesses.
    checks = [KolmogorovSmirnov(), AndersonDarling(), ChiSquare(64), Betting(pairs=False)]
    evidence, rows = until_decided(
        source, suite({"known law": checks}, source), "known law", limits, metric="ks", aside=(TransformHistogram(),)
    )
    found = conclude(
        evidence, epsilon=limits.epsilon, delta=DELTA, subject=first.subject, metric="ks", seconds=0.0,
        scope=f"{first.scope}; then {rows} more of each pair",
    )  # fmt: skip
    return replace(found, acceptance=first.acceptance, overlap=first.overlap)
