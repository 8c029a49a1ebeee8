"""Deterministic violations: outputs that a sampler of the target cannot produce."""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.checks import Check, Tally
from verify.records import CheckClaim, Finding

COINCIDENCE = 2.0**-22
"""The largest atom that single-precision noise gives to a bounded density: four times the spacing of 24-bit draws."""
MOST = 16
"""How many repeated values are kept track of."""


def resolution(sample: Tensor) -> float:
    """The largest atom a continuous law may have when it is represented in the dtype of ``sample``."""
    return max(COINCIDENCE, float(torch.finfo(sample.dtype).eps))


def most_repeated(sample: Tensor) -> tuple[Tensor, int]:
    """The row of ``sample`` (n, d) that occurs most often, and how often."""
    ordered = np.sort(sample[:, 0].numpy())
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):  # whole rows are slow to sort, and rows that are equal begin alike
        return sample[0], 1
    rows, counts = np.unique(sample.numpy()[np.isin(sample[:, 0].numpy(), twice)], axis=0, return_counts=True)
    return torch.as_tensor(rows[counts.argmax()]), int(counts.max())


@dataclass(frozen=True)
class Repeats:
    """The rows seen most often, each by a hash of its bytes, and how often: (count, hash), at most ``MOST``.

    Counts of equal hashes add; those of rows that other shards saw once, or too seldom to be kept, are lost. So a count
    is never too large, and whoever judges by it errs on the safe side.
    """

    counts: tuple[tuple[int, int], ...] = ()

    def __add__(self, other: Repeats) -> Repeats:
        total: dict[int, int] = {}
        for times, row in (*self.counts, *other.counts):
            total[row] = total.get(row, 0) + times
        return Repeats(tuple(sorted(((times, row) for row, times in total.items()), reverse=True)[:MOST]))

    @property
    def times(self) -> int:
        return max((times for times, _ in self.counts), default=1)


@dataclass(frozen=True, eq=False)
class Impossible(Tally):
    """Rows that are not ``finite``; rows ``outside`` the target's support; ``again``: rows that equal an earlier one of
    their shard, and how many of these chance makes at most, ``expected``; the ``repeats``. ``atom`` is the largest that
    rounding leaves a continuous law, summed over rows.
    """

    infinite: int
    outside: int
    again: int
    expected: float
    atom: float
    repeats: Repeats


@dataclass(frozen=True)
class Impossibilities:
    """Rows that a sampler of the target cannot produce, or not so often. Raises ValueError for rows of another shape
    than the events of ``truth``.
    """

    def __call__(self, sample: Tensor, truth: Law, tape: Tape) -> Impossible:
        if tuple(sample.shape[1:]) != truth.event_shape:
            raise ValueError(f"rows of shape {tuple(sample.shape[1:])} cannot follow a law on {truth.event_shape}")
        n = len(sample)
        if not sample.is_floating_point():
            return Impossible(n, 0, _outside(sample, truth), 0, 0.0, 0.0, Repeats())
        flat = sample.reshape(n, -1)
        finite = torch.isfinite(flat).all(-1)
        good = sample[finite]
        atom = resolution(sample)
        law = truth if truth.batch_shape in ((), (1,)) else truth[finite]
        again, repeats = _repeats(flat[finite])
        expected = atom * len(good) * (len(good) - 1) / 2
        return Impossible(n, n - len(good), _outside(good, law), again, expected, n * atom, repeats)


def _repeats(rows: Tensor) -> tuple[int, Repeats]:
    """How many rows equal an earlier one; and the values that occur twice or more."""
    if len(rows) < 2:
        return 0, Repeats()
    ordered = np.sort(rows[:, 0].numpy())
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):  # whole rows are slow to sort, and rows that are equal begin alike
        return 0, Repeats()
    values, counts = np.unique(rows.numpy()[np.isin(rows[:, 0].numpy(), twice)], axis=0, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:MOST]
    found = [(int(counts[k]), _hash(values[k])) for k in most if counts[k] > 1]
    return int((counts - 1).sum()), Repeats(tuple(sorted(found, reverse=True)))


def _hash(row: np.ndarray) -> int:
    # Adding 0 turns -0 into 0, which is the same value.
    return int.from_bytes(blake2b((row.astype(np.float64) + 0.0).tobytes(), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Support(Check):
    """Non-finite outputs, outputs where the target has no mass, and continuous outputs that are repeated too often.

    The first two have p-value 0. If no value has an atom above c, some value occurs k times among n rows with
    probability at most C(n, k) c^(k - 1); and each row equals one of the i before it in its shard with probability at
    most i c, so that the number of these is below a binomial with mean c n (n - 1) / 2 (Hoeffding 1956, Theorem 4).
    Bonferroni over the two; c = 2^-22 forgives noise drawn in single precision. Across shards the counts of a value are
    kept for a few of the most frequent, and never too large.
    """

    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="NaN and infinities, values the target excludes, padding, clamping, noise used for many rows",
        blind_to="every law that is continuous on the target's support",
    )

    @property
    def statistic(self) -> Impossibilities:
        return Impossibilities()

    def judge(self, tally: Impossible, alpha: float) -> Finding:
        n, bad, outside = tally.n, tally.infinite, tally.outside
        p_value, note = 1.0, "none"
        if bad:
            p_value, note = 0.0, f"{bad} of {n} rows are not finite"
        elif outside:
            p_value, note = 0.0, f"{outside} of {n} rows lie where the target has no mass"
        elif tally.atom > 0 and n > 1:
            times = tally.repeats.times
            one = repeats_p_value(n, times, tally.atom / n)
            many = float(binom.sf(tally.again - 1, n, min(1.0, tally.expected / n)))
            many = many if tally.again >= tally.expected + 1 else 1.0
            p_value = min(1.0, 2 * min(one, many))
            note = f"one row occurs {times} times, {tally.again} rows are repeats"
        return Finding(
            verifier="",
            scenario="",
            check="support",
            statistic=float(bad + outside),
            p_value=p_value,
            alpha=alpha,
            n=n,
            seed=0,
            note=note,
            metric="tv",
            smallest=min(1.0, math.log(10) / n),
        )


def repeats_p_value(n: int, times: int, atom: float) -> float:
    """A bound on the probability that a value occurs ``times`` times among ``n`` draws with no atom above ``atom``."""
    log_ways = math.lgamma(n + 1) - math.lgamma(times + 1) - math.lgamma(n - times + 1)
    return math.exp(min(0.0, log_ways + (times - 1) * math.log(atom)))


def _outside(sample: Tensor, truth: Law) -> int:
    if not sample.is_floating_point():
        size = getattr(truth, "probs", torch.empty(0)).shape[-1]
        known = (sample >= 0) & (sample < size)
        if not bool(known.all()):
            return int((~known).sum())
    return int((truth.log_prob(sample) == -torch.inf).sum())
