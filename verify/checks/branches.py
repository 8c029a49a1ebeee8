"""Kept rows and replaced rows, each by itself, against what a lossless rule may and must put there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.stats import binom, norm
from torch import Tensor
from torch.special import ndtr, ndtri

from distributions.law import Law
from distributions.tape import Tape
from verify.checks.transform import uniforms
from verify.records import CheckClaim, Finding

CELLS, RINGS = 16, 4


@dataclass(frozen=True)
class Excess:
    """One event along the line, ``low`` < place <= ``high``, of the rows that are ``kept`` (or of those that are not),
    its frequency ``hits`` / n and the ``mass`` that it has at most (at least) under a lossless rule.
    """

    kept: bool
    low: float
    high: float
    hits: int
    mass: float


@dataclass(frozen=True, eq=False)
class Branches:
    """Exact binomial tests of each branch of a rule on Gaussians of one covariance, Bonferroni over the events.

    Let rows be drafted from q, and emitted with law p. Whatever the rule, kept rows follow both laws, so that in every
    set A P(kept, A) <= int_A min(p, q), and hence P(replaced, A) >= int_A (p - q)+. A rule that breaks the first or the
    second by eps has a law at least eps from p in total variation: where p > q the kept rows number q(A) at most, and
    elsewhere they are part of what is emitted. The sets: cells, half-lines and rings about the line, and blocks of
    these, so that a branch which forgets what lies across the line is seen, and one whose parts depend on each other.
    Replaced rows are few where the laws are near, and so is their noise: there this sees far more than the whole law.

    The first column of the transformed sample is the place on the line through the means, the last one, if it is not
    the first, the radius across. ``accepted`` (n,): output equals draft. ``start``: the draft's mean along the line, in
    standard deviations from the target's mean; not 0.
    """

    accepted: Tensor
    start: float
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="a wrong residual or a wrong acceptance somewhere, above all between laws that are near",
        blind_to="replacements that are too many, which show as kept rows that are too few; rules that keep little",
    )

    def __call__(self, sample: Tensor, truth: Law, alpha: float, tape: Tape) -> Finding:
        columns = uniforms(sample, truth, tape)
        (hits, chance), n = self._tables(columns), len(columns)
        counts, masses = _events(hits), _events(chance)
        p_values = _p_values(counts, masses, n)
        worst = int(p_values.argmin())
        branch = "kept" if worst < counts.shape[1] else "replaced"
        bar = float(norm.isf(alpha / p_values.size) + norm.ppf(0.9))
        return Finding(
            verifier="",
            scenario="",
            check="branches",
            statistic=-math.log10(max(float(p_values.flat[worst]), 1e-300)),
            p_value=min(1.0, p_values.size * float(p_values.flat[worst])),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"worst among the {branch} rows",
            metric="tv",
            smallest=bar * math.sqrt(float((masses * (1 - masses)).max()) / n),
        )

    def heaviest(self, columns: Tensor) -> Excess:
        """The half-line or cell along the line, all rings together, whose frequency is most beyond its mass, noise of
        five standard deviations aside.
        """
        (hits, chance), n = self._tables(columns), len(columns)
        counts, masses = (_along(part.sum(-1)) for part in (hits, chance))
        beyond = torch.tensor([[1.0], [-1.0]]) * (counts / n - masses)
        branch, event = divmod(int((beyond - 5 * (counts / n**2).sqrt()).argmax()), counts.shape[1])
        return Excess(branch == 0, *self._ends(event), int(counts[branch, event]), float(masses[branch, event]))

    def _edges(self) -> Tensor:
        """Ends of the cells along the line, from the target's mean towards where the target exceeds the draft."""
        distance = abs(self.start)
        reach = 2.5 + distance / 2
        inner = torch.linspace(-reach, reach, CELLS - 1, dtype=torch.float64) - distance / 2
        end = torch.tensor([math.inf], dtype=torch.float64)
        return torch.cat((-end, inner, end))

    def _tables(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Rows counted, and masses allowed: (2, CELLS, RINGS), the branches kept and replaced."""
        distance, edges = abs(self.start), self._edges()
        place = -math.copysign(1.0, self.start) * ndtri(columns[:, 0])
        rings = RINGS if columns.shape[1] > 1 else 1
        ring = (columns[:, -1] * rings).long().clamp(0, rings - 1) if rings > 1 else torch.zeros(len(columns)).long()
        cell = torch.bucketize(place.contiguous(), edges[1:-1].contiguous())
        code = ((~self.accepted).long() * CELLS + cell) * rings + ring
        hits = torch.bincount(code, minlength=2 * CELLS * rings).reshape(2, CELLS, rings).double()
        middle = torch.tensor(-distance / 2, dtype=torch.float64)
        both = torch.where(
            edges < middle, ndtr(edges), ndtr(middle) + ndtr(edges + distance) - ndtr(middle + distance)
        ).diff()
        masses = torch.stack((both, ndtr(edges).diff() - both)).clamp(min=0)
        return hits, (masses / rings).unsqueeze(-1).expand_as(hits)

    def _ends(self, event: int) -> tuple[float, float]:
        """The ends of the event of that number in ``_along``, as places from the target's mean along the column."""
        kind, cell = divmod(event, CELLS)
        edges = self._edges()
        low, high = ((cell, cell + 1), (0, cell + 1), (cell, CELLS))[kind]
        ends = float(edges[low]), float(edges[high])
        return (-ends[1], -ends[0]) if self.start > 0 else ends


def _along(table: Tensor) -> Tensor:
    """Cells (2, CELLS), then half-lines from the left and from the right."""
    right = table.flip(-1).cumsum(-1).flip(-1)
    return torch.cat((table, table.cumsum(-1), right), -1)


def _events(table: Tensor) -> Tensor:
    """The sums (2, events) of a table (2, CELLS, RINGS) over all events."""
    along = table.sum(-1)
    if table.shape[-1] == 1:
        return _along(along)
    blocks = table.reshape(2, 4, CELLS // 4, table.shape[-1]).sum(2).flatten(1)
    return torch.cat((_along(along), table.sum(1), blocks), -1)


def _p_values(counts: Tensor, masses: Tensor, n: int) -> np.ndarray:
    """Of too many rows kept, and too few replaced: an array of the shape of ``counts``."""
    kept, replaced = counts.numpy()
    most, least = masses.numpy().clip(0, 1)  # sums of all cells may pass 1 by rounding
    return np.stack((binom.sf(kept - 1, n, most), binom.cdf(replaced, n, least)))
