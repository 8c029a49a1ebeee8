"""Counts of the probability integral transform on a fine grid: the statistic of most tests against a known law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributions.tape import Tape
from verify.checks import Tally
from verify.checks.transform import uniforms


@dataclass(frozen=True, eq=False)
class Histogram(Tally):
    """``counts`` (m, cells), int64: rows of each column in each of the equal cells of [0, 1)."""

    counts: Tensor

    def folded(self, cells: int) -> Tensor:
        """The counts (m, cells) on a coarser grid. Raises ValueError unless ``cells`` divides the grid."""
        width, fine = self.counts.shape
        if fine % cells:
            raise ValueError(f"{fine} cells do not fold into {cells}; choose a power of two")
        return self.counts.reshape(width, cells, fine // cells).sum(-1)


@dataclass(frozen=True)
class TransformHistogram:
    """Every column of the transform on 2^``bits`` equal cells. What lies within a cell is not seen: a distance of
    distribution functions is known up to 2^-bits.
    """

    bits: int = 16

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> Histogram:
        columns = uniforms(sample, truth, tape)
        n, width = columns.shape
        cells = 1 << self.bits
        counts = torch.stack(
            [torch.bincount((column * cells).long().clamp_(0, cells - 1), minlength=cells) for column in columns.T]
        )
        return Histogram(n, counts)
