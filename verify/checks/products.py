"""Dependence between the coordinates of a row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.checks.transform import uniforms
from verify.records import CheckClaim, Finding

LARGEST = 5.0
"""The largest product of two of the polynomials below."""


def legendre(columns: Tensor) -> Tensor:
    """The first two orthonormal shifted Legendre polynomials of each column: (n, 2 m), mean 0 and variance 1."""
    centred = columns - 0.5
    return torch.cat((math.sqrt(12) * centred, math.sqrt(5) * (6 * centred.square() - 0.5)), -1)


@dataclass(frozen=True)
class Products:
    """The largest mean product of Legendre polynomials (degrees 1 and 2) of two different columns, all pairs.

    The products of independent uniforms' polynomials have mean 0, variance 1 and size at most 5, so Bernstein's
    inequality gives P(|mean| >= t) <= 2 exp(-n t^2 / (2 + 10 t / 3)) at every n; Bonferroni over the pairs. The part of
    degree (1, 1) is Spearman's correlation; (2, 2) sees scales that vary together.
    """

    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="correlated coordinates, common scales, a wrong reflection or rotation",
        blind_to="dependence among three or more coordinates, and of a higher degree",
    )

    def __call__(self, sample: Tensor, truth: Law, alpha: float, tape: Tape) -> Finding:
        columns = uniforms(sample, truth, tape)
        n, width = columns.shape
        if width < 2:
            raise ValueError("products need two columns or more; a law on the line has no pair of coordinates")
        features = legendre(columns)
        means = features.T @ features / n
        first, second = torch.triu_indices(2 * width, 2 * width, 1)
        pairs = (first % width) != (second % width)
        first, second = first[pairs], second[pairs]
        sizes = means[first, second].abs()
        worst, at = float(sizes.max()), int(sizes.argmax())
        logs = math.log(2 * len(sizes) / alpha)
        return Finding(
            verifier="",
            scenario="",
            check="products",
            statistic=worst,
            p_value=min(1.0, 2 * len(sizes) * math.exp(-n * worst**2 / (2 + 2 * LARGEST * worst / 3))),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"columns {int(first[at]) % width} and {int(second[at]) % width}, degrees "
            f"{int(first[at]) // width + 1} and {int(second[at]) // width + 1}",
            metric="correlation",
            # The critical value solves n t^2 = log (2 + 10 t / 3); beyond it the mean has a deviation of 1 / sqrt n.
            smallest=LARGEST * logs / (3 * n)
            + math.sqrt((LARGEST * logs / (3 * n)) ** 2 + 2 * logs / n)
            + 1.2816 / math.sqrt(n),
        )
