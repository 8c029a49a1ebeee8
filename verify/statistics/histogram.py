"""Counts of the probability integral transform on a fine grid: the statistic of most tests against a known law."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.checks import Tally
from verify.statistics.transform import blocks, tails

OCTAVES = 48
"""Cells of each tail, beyond the grid."""
CELLS = 1 << 22
"""The most cells in all: 32 MB of counts. Where the columns are many, each has fewer cells."""


@dataclass(frozen=True, eq=False)
class Histogram(Tally):
    """``counts`` (m, cells), int64: rows of each column in each of the equal cells of [0, 1).

    ``tails`` (m, 2, 48): those in the first cell, and those in the last, by the distance t from the end of the
    interval: place j holds t from 2^-(j + 1) to 2^-j of a cell, the last place all that is nearer. For a Categorical
    that is one law for all rows also its ``tokens`` (V,), those that it does not have left out, and how many of each
    are ``expected`` (V,); else empty.
    """

    counts: Tensor
    tails: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    tokens: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    expected: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    def folded(self, cells: int) -> Tensor:
        """The counts (m, cells) on a coarser grid. Raises ValueError unless ``cells`` divides the grid."""
        width, fine = self.counts.shape
        if fine % cells:
            raise ValueError(f"{fine} cells do not fold into {cells}; choose a power of two")
        return self.counts.reshape(width, cells, fine // cells).sum(-1)


@dataclass(frozen=True)
class TransformHistogram:
    """Every column of the transform on 2^``bits`` equal cells, fewer where the columns are so many that this would be
    more than 2^22 in all. What lies within a cell is not seen: a distance of distribution functions is known up to one
    cell. Both tails are counted in octaves, down to 2^-48 of a cell.
    """

    bits: int = 16

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> Histogram:
        found = histogram(len(sample), (block for _, block in blocks(tails, sample, truth, tape)), self.bits)
        if not isinstance(truth, Categorical) or truth.batch_shape != ():
            return found
        vocab = len(truth.probs)
        known = sample[(sample >= 0) & (sample < vocab)].flatten()
        tokens = torch.bincount(known, minlength=vocab)
        return Histogram(found.n, found.counts, found.tails, tokens, sample.numel() * truth.probs)


def histogram(n: int, parts: Iterable[Tensor], bits: int) -> Histogram:
    """Of ``n`` rows whose signed tails (``transform.tails``) come in ``parts`` (rows, m)."""
    places, beyond, width, done = np.empty((0, 0), np.int32), [], 0, 0
    for part in parts:
        if not done:
            width = part.shape[1]
            bits = min(bits, (CELLS // max(1, width)).bit_length() - 1)
            places = np.empty((width, n), np.int32)
        cell = part.numpy() * float(1 << bits)
        # A cell counted from the upper end is the two's complement of one counted from the lower end.
        with np.errstate(invalid="ignore"):  # what is not a number goes into the first cell
            places[:, done : done + len(part)] = (np.floor(cell).astype(np.int32) & ((1 << bits) - 1)).T
        extreme = np.flatnonzero(np.abs(cell) < 1)
        distance = cell.ravel()[extreme]
        octave = np.clip(-np.frexp(distance)[1], 0, OCTAVES - 1)
        beyond.append((extreme % width * 2 + (distance < 0)) * OCTAVES + octave)
        done += len(part)
    counts = torch.stack([torch.bincount(place, minlength=1 << bits) for place in torch.from_numpy(places)])
    ends = np.bincount(np.concatenate(beyond), minlength=width * 2 * OCTAVES)
    return Histogram(n, counts, torch.from_numpy(ends.reshape(width, 2, OCTAVES)))
