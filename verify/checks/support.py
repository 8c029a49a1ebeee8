"""Deterministic violations: outputs that a sampler of the target cannot produce."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.records import CheckClaim, Finding

COINCIDENCE = 2.0**-22
"""The largest atom that single-precision noise gives to a bounded density: four times the spacing of 24-bit draws."""


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
class Support:
    """Non-finite outputs, outputs where the target has no mass, and one continuous output repeated too often.

    The first two have p-value 0. If no value has an atom above c, some value occurs k times among n rows with
    probability at most C(n, k) c^(k - 1), the p-value of the third; c = 2^-22 forgives noise drawn in single precision.
    Raises ValueError for rows of another shape than the events of ``truth``.
    """

    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="NaN and infinities, values the target excludes, padding, clamping, noise used for many rows",
        blind_to="every law that is continuous on the target's support",
    )

    def __call__(self, sample: Tensor, truth: Law, alpha: float, tape: Tape) -> Finding:
        if tuple(sample.shape[1:]) != truth.event_shape:
            raise ValueError(f"rows of shape {tuple(sample.shape[1:])} cannot follow a law on {truth.event_shape}")
        n = len(sample)
        flat = sample.reshape(n, -1)
        bad = int((~torch.isfinite(flat)).any(-1).sum()) if sample.is_floating_point() else 0
        outside = 0 if bad else _outside(sample, truth)
        p_value, note = 1.0, "none"
        if bad:
            p_value, note = 0.0, f"{bad} of {n} rows are not finite"
        elif outside:
            p_value, note = 0.0, f"{outside} of {n} rows lie where the target has no mass"
        elif sample.is_floating_point() and n > 1:
            _, times = most_repeated(flat)
            p_value, note = repeats_p_value(n, times, resolution(sample)), f"one row occurs {times} times"
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
