"""Kept rows and replaced rows, each by itself, against what a lossless rule may and must put there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.stats import binom, norm
from torch import Tensor
from torch.special import ndtr

from distributions.tape import Tape
from verify.checks import Check, Tally
from verify.checks.residual_law import one_covariance, radius_across
from verify.gaussian.frame import Frame
from verify.records import CheckClaim, Finding
from verify.statistics.trace import Trace, nothing, same

CELLS, RINGS = 16, 4
REACH = 2.5
"""The inner cells reach this far beyond both means."""


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
class Branched(Tally):
    """``hits`` and ``masses`` (2, CELLS, RINGS), branches kept and replaced: rows counted, and how many are expected
    there at most (kept) or at least (replaced).
    """

    hits: Tensor
    masses: Tensor


@dataclass(frozen=True)
class BranchCounts:
    """The first tokens of chains between Gaussians of one covariance and different means, in cells along the line and
    rings across it. Other traces leave everything at 0.
    """

    def __call__(self, sample: Trace, truth: Any, tape: Tape) -> Branched:
        empty = torch.zeros(2, CELLS, RINGS, dtype=torch.float64)
        target, draft = sample.target[:, 0], sample.draft[:, 0]
        if not sample.chain or not one_covariance(target, draft):
            return Branched(0, empty, empty)
        frame, value = Frame.of("branches", target, draft), sample.emitted[:, 0]
        if not bool((frame.distance > 0).all()):
            return Branched(0, empty, empty)
        distance, n = frame.distance, len(sample)
        rings = RINGS if value.shape[-1] > 1 else 1
        ring = (radius_across(frame, value) * rings).long().clamp(0, rings - 1) if rings > 1 else 0
        reach = REACH + distance / 2
        # Away from the draft, in standard deviations from the middle between the means; cells of one width.
        place = (frame.place(value) - distance / 2) / (2 * reach) + 0.5
        cell = ((place * (CELLS - 2)).floor() + 1).clamp(0, CELLS - 1).long()
        code = ((~same(value, sample.drafted[:, 0])).long() * CELLS + cell) * rings + ring
        hits = torch.bincount(code, minlength=2 * CELLS * rings).reshape(2, CELLS, rings).double()
        masses = cell_masses(distance).sum(0) * (n / len(distance)) / rings
        spread = torch.zeros_like(empty)
        spread[..., :rings] = hits
        return Branched(n, spread, torch.where(torch.arange(RINGS) < rings, masses.unsqueeze(-1), 0.0))


def cell_edges(distance: Tensor) -> Tensor:
    """Ends (*batch, CELLS + 1) of the cells along the line, from the target's mean away from the draft's, at
    ``distance`` (*batch).
    """
    inner = torch.linspace(-1, 1, CELLS - 1, dtype=torch.float64)
    inner = inner * (REACH + distance.unsqueeze(-1) / 2) - distance.unsqueeze(-1) / 2
    end = torch.full_like(inner[..., :1], math.inf)
    return torch.cat((-end, inner, end), -1)


def cell_masses(distance: Tensor) -> Tensor:
    """What min(p, q) and (p - q)+ give each cell: (*batch, 2, CELLS)."""
    edges, apart = cell_edges(distance), distance.unsqueeze(-1)
    below = torch.minimum(edges, -apart / 2)  # where the draft exceeds the target
    both = ndtr(below) + ndtr(edges + apart) - ndtr(below + apart)
    return torch.stack((both.diff(), (ndtr(edges) - both).diff()), -2).clamp(min=0)


@dataclass(frozen=True)
class Branches(Check):
    """Exact binomial tests of each branch of a rule on Gaussians of one covariance, Bonferroni over the events.

    Let rows be drafted from q, and emitted with law p. Whatever the rule, kept rows follow both laws, so that in every
    set A P(kept, A) <= int_A min(p, q), and hence P(replaced, A) >= int_A (p - q)+. A rule that breaks the first or the
    second by eps has a law at least eps from p in total variation: where p > q the kept rows number q(A) at most, and
    elsewhere they are part of what is emitted. The sets: cells, half-lines and rings about the line, and blocks of
    these, so that a branch which forgets what lies across the line is seen, and one whose parts depend on each other.
    Replaced rows are few where the laws are near, and so is their noise: there this sees far more than the whole law.

    A row is kept if its output is its draft. Rows with laws of their own have cells of their own, and the binomial law
    of the mean mass still bounds both tails (Hoeffding 1956, Theorem 4).
    """

    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="a wrong residual or a wrong acceptance somewhere, above all between laws that are near",
        blind_to="replacements that are too many, which show as kept rows that are too few; rules that keep little",
    )

    @property
    def statistic(self) -> BranchCounts:
        return BranchCounts()

    def judge(self, tally: Branched, alpha: float) -> Finding:
        n = tally.n
        if not n:
            return nothing("branches", "no chain of Gaussians of one covariance and different means", alpha)
        counts, masses = _tables(tally)
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

    def heaviest(self, tally: Branched, start: float) -> Excess:
        """The half-line or cell along the line, all rings together, whose frequency is most beyond its mass, noise of
        five standard deviations aside. ``start``: the draft's mean on the axis of which the event speaks, in standard
        deviations from the target's mean.
        """
        n = tally.n
        counts, masses = (_along(part.sum(-1)) for part in (tally.hits, tally.masses / n))
        beyond = torch.tensor([[1.0], [-1.0]]) * (counts / n - masses)
        branch, event = divmod(int((beyond - 5 * (counts / n**2).sqrt()).argmax()), counts.shape[1])
        kind, cell = divmod(event, CELLS)
        edges = cell_edges(torch.tensor(abs(start), dtype=torch.float64))
        low, high = ((cell, cell + 1), (0, cell + 1), (cell, CELLS))[kind]
        ends = float(edges[low]), float(edges[high])
        ends = (-ends[1], -ends[0]) if start > 0 else ends
        return Excess(branch == 0, *ends, int(counts[branch, event]), float(masses[branch, event]))


def _tables(tally: Branched) -> tuple[Tensor, Tensor]:
    """The sums (2, events) of rows, and of masses a row, over all events; on the line there is one ring."""
    rings = RINGS if bool(tally.masses[..., 1:].any()) else 1
    return _events(tally.hits[..., :rings]), _events(tally.masses[..., :rings] / tally.n)


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
