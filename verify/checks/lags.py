"""Dependence along a sequence: what a step has left over of the steps before it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import chdtr, chdtrc, ndtr, ndtri
from torch import Tensor

from distributions.tape import Tape
from verify.checks import Check, Tally
from verify.checks.chi_square import effect
from verify.records import CheckClaim, Finding
from verify.statistics.transform import blocks, scores


@dataclass(frozen=True, eq=False)
class LagSums(Tally):
    """Of normal scores z (n, T, width), summed over the rows: z, ``total``, and z^2, ``square``, (T, width) both, and
    z_t z_{t-l}, ``product`` (lags, T, width), 0 where t < l.
    """

    total: Tensor
    square: Tensor
    product: Tensor


@dataclass(frozen=True)
class LagProducts:
    """First and second moments of the innovations of sequences of tokens of ``width`` numbers, up to lag ``lags``.

    The columns of the transform, as normal scores, are T tokens one after the other. Raises ValueError where they are
    no whole number of tokens, more than ``lags``.
    """

    lags: int = 1
    width: int = 1

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> LagSums:
        parts: list[tuple[Tensor, ...]] = []
        for _, columns in blocks(scores, sample, truth, tape):
            length, rest = divmod(columns.shape[1], self.width)
            if rest or length <= self.lags:
                raise ValueError(
                    f"{columns.shape[1]} columns are no sequence of tokens of {self.width} numbers longer than "
                    f"{self.lags}; set width to the size of a token, or lags to fewer"
                )
            z = columns.reshape(-1, length, self.width)
            product = torch.zeros(self.lags, length, self.width, dtype=torch.float64)
            for lag in range(1, self.lags + 1):
                product[lag - 1, lag:] = torch.linalg.vecdot(z[:, lag:], z[:, :-lag], dim=0)
            parts.append((z.sum(0), torch.linalg.vecdot(z, z, dim=0), product))
        return LagSums(len(sample), *(torch.stack(part).sum(0) for part in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Lags(Check):
    """Mean, variance and products at lags 1 to ``lags`` of the innovations, over all places together and place by
    place, half of the level each.

    Innovations z_t are independent N(0, 1) under the truth. Sums of z are normal, sums of z^2 chi-square. The sum over
    rows of z_t z_{t-l} over the root of that of z_{t-l}^2 is N(0, 1) at one place, exactly, given the earlier column;
    over all places it is a martingale over the root of its variation, N(0, 1) in the limit. Together: the squares of
    these 2 + ``lags`` scores, chi-square with as many degrees. By place: the largest, Bonferroni, exact at every n.
    ``smallest``: a correlation of the innovations at lag 1, everywhere the same.
    """

    lags: int = 1
    width: int = 1
    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="sequences whose tokens depend on the past too much or too little, at one place or at all of them",
        blind_to="dependence that is not linear, beyond the lags, or between coordinates of a token",
    )

    @property
    def statistic(self) -> LagProducts:
        return LagProducts(self.lags, self.width)

    def judge(self, tally: LagSums, alpha: float) -> Finding:
        n, (length, width) = tally.n, tally.total.shape
        size = n * length * width
        pooled = [float(tally.total.sum()) / math.sqrt(size), float(_score(tally.square.sum(), size))]
        places = [tally.total.numpy() / math.sqrt(n), _score(tally.square, n)]
        names = ["mean", "variance"]
        for lag, product in enumerate(tally.product, start=1):
            before = tally.square[:-lag]
            pooled.append(float(product.sum() / before.sum().sqrt()))
            places.append((product[lag:] / before.sqrt()).numpy())
            names.append(f"lag {lag}")
        together = float(chdtrc(len(pooled), np.square(pooled).sum()))
        largest = [float(np.abs(part).max()) for part in places]
        which = int(np.argmax(largest))
        alone = sum(part.size for part in places) * 2 * float(ndtr(-largest[which]))
        by_place = np.unravel_index(int(np.abs(places[which]).argmax()), places[which].shape)
        at = int(by_place[0]) + max(0, which - 1)
        shown = ", ".join(f"{name} {score:+.1f}" for name, score in zip(names, pooled, strict=True))
        return Finding(
            verifier="",
            scenario="",
            check="lags",
            statistic=float(np.square(pooled).sum()),
            p_value=min(1.0, 2 * min(together, alone)),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"standard errors: {shown}; worst by place: {names[which]} at token {at}, {largest[which]:.1f}",
            metric="correlation",
            smallest=effect(n * width * (length - 1), len(pooled), alpha / 2),
        )


def _score(total: Tensor, freedom: int) -> np.ndarray:
    """The normal score of a chi-square sum, from the nearer tail."""
    value = total.numpy()
    return np.asarray(np.where(value > freedom, -ndtri(chdtrc(freedom, value)), ndtri(chdtr(freedom, value))))
