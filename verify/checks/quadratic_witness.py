"""Two samples through what they show in means, variances and correlations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.records import CheckClaim
from verify.statistics.held_out import CHUNK, HeldOut
from verify.statistics.learned import Learned, Learner
from verify.statistics.pairs import pilot, typical

REACH = 12.0
"""Coordinates are clipped here, in their own scale: squares of heavy tails would be all that is seen."""


@dataclass(frozen=True, eq=False)
class Quadratic(Learned):
    """f(x) = z' ``square`` z + ``linear`` . z, with z = (x - ``centre``) / ``scale``."""

    centre: Tensor
    scale: Tensor
    square: Tensor
    linear: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        z = standard(rows, self.centre, self.scale)
        return ((z @ self.square) * z).sum(-1) + z @ self.linear


def standard(rows: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """Rows (n, d) in units of the pilot, clipped."""
    return ((rows - centre) / scale).clamp_(-REACH, REACH)


@dataclass(frozen=True, eq=False)
class QuadraticDifference(HeldOut):
    """The held-out test of a quadratic function."""

    name: ClassVar[str] = "quadratic_witness"
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="wrong means, scales and correlations of coordinates, dependence between the steps of a sequence",
        blind_to="changes that leave means and covariances; small ones, if the pilot has few rows for each feature",
    )


@dataclass(frozen=True)
class QuadraticWitness(Learner):
    """Fisher's linear discriminant in the monomials of degree one and two of the standardised coordinates.

    With u_i the difference of the monomials of pair i, the weights are (C + shrinkage)^-1 mean(u), C the covariance of
    u: the direction of the largest studentised mean (the witness of Kuebler et al., AISTATS 2022, with this kernel).
    C is shrunk towards its diagonal by m / (m + n) for m monomials; with more than ``most`` of them the diagonal is all
    that is used. Scoring is a quadratic form, d^2 multiplications a row.
    """

    most: int = 1024

    def fit(self, sample: Tensor, truth: Tensor | Law, tape: Tape) -> QuadraticDifference:
        first, second = pilot(sample, truth, tape, 16)
        centre, scale = typical(torch.cat((first[: 1 << 13], second[: 1 << 13])))
        units = (torch.split(standard(rows, centre, scale).float(), CHUNK) for rows in (first, second))
        weights = discriminant((monomials(x) - monomials(y) for x, y in zip(*units, strict=True)), self.most)
        dim = len(centre)
        linear, square = weights[:dim], weights.new_zeros(dim, dim)
        square[tuple(torch.triu_indices(dim, dim))] = weights[dim:]
        score = Quadratic(centre, scale, (square + square.T) / 2, linear)
        return QuadraticDifference.after(score, first, second)


def monomials(z: Tensor) -> Tensor:
    """Columns z_j, then z_i z_j for i <= j: (n, d + d (d + 1) / 2)."""
    first, second = torch.triu_indices(z.shape[1], z.shape[1])
    return torch.cat((z, z[:, first] * z[:, second]), -1)


def discriminant(apart: Iterable[Tensor], most: int = 1024) -> Tensor:
    """The weights (m,), float64, of the largest studentised mean of differences (n, m), shrunk; they come in chunks."""
    rows, total, square = 0, torch.zeros(()), torch.zeros(())
    for chunk in apart:
        few = chunk.shape[1] <= most
        rows += len(chunk)
        total = total + chunk.sum(0).double()
        square = square + (chunk.T @ chunk if few else chunk.square().sum(0)).double()
    mean, width = total / rows, len(total)
    if square.dim() == 1:
        return mean / (square / rows + 1e-12)
    shrinkage = width / (width + rows)
    spread = square / rows - torch.outer(mean, mean)
    diagonal = spread.diagonal()
    diagonal += 1e-9 * diagonal.max() + 1e-12
    weights: Tensor = torch.linalg.solve((1 - shrinkage) * spread + shrinkage * diagonal.diag(), mean)
    return weights
