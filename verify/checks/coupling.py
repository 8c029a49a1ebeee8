"""Coupling: what was emitted beside what an exact reference emitted on the same draft and the same noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from scipy.stats import beta
from torch import Tensor

from distributions.tape import Tape
from verify.checks import Check, Tally
from verify.records import CheckClaim, Finding
from verify.statistics.extremes import First


@dataclass(frozen=True, eq=False)
class Block:
    """Emitted blocks: ``value`` (n, L, *event), of which the first ``length`` (n,) count; ``kept`` (n, N), the nodes
    that were accepted; ``label`` (n, k), whole numbers by which a row is found again; ``log_accept`` (n,), of the first
    node; ``astray`` (n,), whether that was refused for a token to which the target gives less than its draft's law.
    """

    value: Tensor
    length: Tensor
    kept: Tensor
    label: Tensor | None = None
    log_accept: Tensor | None = None
    astray: Tensor | None = None

    @staticmethod
    def of(emitted: Block | Tensor) -> Block:
        """A tensor (n, *event) as blocks of one token each."""
        if isinstance(emitted, Block):
            return emitted
        rows = len(emitted)
        return Block(emitted.unsqueeze(1), torch.ones(rows, dtype=torch.long), torch.zeros(rows, 0, dtype=torch.bool))


@dataclass(frozen=True, eq=False)
class Mismatch(Tally):
    """Rows whose ``emitted`` blocks differ; rows that ``accepted`` other nodes; those that were ``replaced`` otherwise
    although they kept the same nodes; the label of the ``first`` row that differs in one way or the other.
    """

    emitted: int
    accepted: int
    replaced: int
    first: First


@dataclass(frozen=True)
class Mismatches:
    """Counts the rows of two samples, both Blocks or tensors (n, *event), that are not the same.

    Tokens are the same where all their coordinates agree up to ``room`` times the machine epsilon of the sample's
    dtype times one plus the token's largest coordinate; 0 asks for equality. A value that is not a number differs.
    """

    room: float = 0.0

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> Mismatch:
        ours, theirs = Block.of(sample), Block.of(truth)
        differs = self._differ(ours, theirs)
        apart = (ours.kept != theirs.kept).any(-1) if ours.kept.shape == theirs.kept.shape else torch.ones_like(differs)
        found = torch.nonzero(differs | apart).flatten()
        first = First()
        if len(found) and ours.label is not None:
            first = First(min(map(tuple, ours.label[found].tolist())))
        return Mismatch(len(differs), int(differs.sum()), int(apart.sum()), int((differs & ~apart).sum()), first)

    def _differ(self, ours: Block, theirs: Block) -> Tensor:
        width = max(ours.value.shape[1], theirs.value.shape[1])
        one, other = (_wide(block.value, width) for block in (ours, theirs))
        if self.room and one.is_floating_point():
            size = torch.maximum(one.abs(), other.abs()).flatten(2).amax(-1) if one.numel() else one.flatten(2).sum(-1)
            room = self.room * torch.finfo(one.dtype).eps * (1 + size.double())
            gap = (one.double() - other.double()).abs().flatten(2)
            same = (gap <= room.unsqueeze(-1)).all(-1)
        else:
            same = (one == other).flatten(2).all(-1)
        counted = torch.arange(width) < ours.length.unsqueeze(-1)
        return (ours.length != theirs.length) | (counted & ~same).any(-1)


def _wide(value: Tensor, width: int) -> Tensor:
    """``value`` (n, L, *event) as (n, width, *event, 1): tokens beyond its own are 0, and are not looked at."""
    short = value.new_zeros(len(value), width - value.shape[1], *value.shape[2:])
    return torch.cat((value, short), 1).unsqueeze(-1)


def upper(hits: int, n: int, delta: float) -> float:
    """The upper end of the one-sided interval of Clopper and Pearson (1934) for a probability, at 1 - ``delta``."""
    if hits == 0:
        return -math.expm1(math.log(delta) / n) if n else 1.0
    return 1.0 if hits >= n else float(beta.isf(delta, hits + 1, n - hits))


@dataclass(frozen=True)
class Coupling(Check):
    """A certificate on the total variation, from runs of two programs on the same drafts and noise.

    For any coupling of the emitted block X with a block X* of the target's law, TV(X, X*) <= P(X != X*) (Lindvall 1992,
    Lectures on the Coupling Method, I.2). The reference is exact, so X* has that law. ``bound`` is the Clopper-Pearson
    upper end for P(X != X*) at confidence 1 - ``delta``, 1 - delta^(1/n) <= ln(1/delta) / n where none of n differs.
    It asks nothing of dimension or density; it does ask that the rows are independent runs.

    There is no test: rules that are exact may differ on one tape. With ``room`` the bound is on the total variation
    once outputs are moved by at most that rounding. A defect of size ``smallest`` leaves one mismatch or more nine
    times in ten, since P(X != X*) is no less than it.
    """

    room: float = 0.0
    delta: float = 1e-6
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="every departure from the reference, run by run; no false alarm, for it raises none",
        blind_to="whether a departure is a bias: an exact rule that draws otherwise differs as well",
    )

    @property
    def statistic(self) -> Mismatches:
        return Mismatches(self.room)

    def judge(self, tally: Mismatch, alpha: float) -> Finding:
        n, found = tally.n, tally.emitted
        note = f"{found} of {n} runs emit otherwise than the reference; {tally.accepted} keep other nodes, "
        note += f"{tally.replaced} keep the same and replace otherwise"
        if tally.first.label is not None:
            note += f"; first at {tally.first.label}"
        return Finding(
            verifier="",
            scenario="",
            check="coupling",
            statistic=found / n if n else 0.0,
            p_value=None,
            alpha=alpha,
            n=n,
            seed=0,
            note=note,
            metric="tv",
            bound=upper(found, n, self.delta),
            smallest=-math.expm1(math.log(0.1) / n) if n else 1.0,
        )
