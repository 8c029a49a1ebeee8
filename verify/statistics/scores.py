"""Sums of martingale differences whose first three conditional moments are known, and their tails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import chi2, norm, pearson3
from torch import Tensor

from verify.checks import Tally
from verify.records import Finding

LEAST = 10.0
"""A sum of smaller variance is not judged: its law is a handful of atoms."""


@dataclass(frozen=True, eq=False)
class Scores(Tally):
    """``total`` (m,): sums of differences with conditional mean 0; the sums of their conditional ``variance`` and
    ``third`` moments.
    """

    total: Tensor
    variance: Tensor
    third: Tensor

    @property
    def p_values(self) -> np.ndarray:
        """Two-sided (m,), asymptotic; 1 where the variance is below ``LEAST``.

        A sum has about the law of Pearson's type III with its first three moments: normal where there are many, and
        near enough to a binomial or a Poisson law where there are few. Half a unit is taken off for its steps.
        """
        spread = self.variance.clamp(min=1e-300).sqrt()
        size = (self.total.abs() - 0.5).clamp(min=0) / spread
        skew = (torch.sign(self.total) * self.third / spread**3).clamp(-1, 1)
        tail = 2 * pearson3.sf(size.numpy(), skew.numpy())
        found: np.ndarray = np.where(self.variance.numpy() < LEAST, 1.0, np.clip(tail, 0.0, 1.0))
        return found


def bernoulli(n: int, weight: Tensor, event: Tensor, chance: Tensor) -> Scores:
    """Events (k,) of known ``chance``, weighted (k, m); n units were looked at."""
    off, spread = event.double() - chance, chance * (1 - chance)
    return Scores(n, off @ weight, spread @ weight**2, (spread * (1 - 2 * chance)) @ weight**3)


def judged(
    check: str, names: Sequence[str], scores: Scores, alpha: float, *, binned: int = 0, metric: str = "", note: str = ""
) -> Finding:
    """The smallest p-value, Bonferroni over the sums; the last ``binned`` of these, on disjoint events, as one
    chi-square. ``smallest``: what the mean of the first sum over the units is seen at nine times in ten.
    """
    every, count = scores.p_values, len(scores.total) - binned
    tails, names = list(every[:count]), list(names)
    if binned:
        bins, used = every[count:], scores.variance[count:].numpy() >= LEAST
        tails.append(float(chi2.sf((norm.isf(bins[used] / 2) ** 2).sum(), max(1, used.sum()))) if used.any() else 1.0)
        names.append("bins together")
    worst = int(np.argmin(tails))
    spread = float(scores.variance[0].sqrt())
    return Finding(
        verifier="",
        scenario="",
        check=check,
        statistic=float(-np.log10(max(tails[worst], 1e-300))),
        p_value=min(1.0, len(tails) * float(tails[worst])),
        alpha=alpha,
        n=scores.n,
        seed=0,
        note=f"worst: {names[worst]}{note}",
        metric=metric,
        smallest=float(norm.isf(alpha / (2 * len(tails))) + norm.ppf(0.9)) * spread / scores.n if scores.n else None,
    )
