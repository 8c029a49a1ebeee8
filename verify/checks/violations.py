"""What no run of a lossless verifier does: each is counted, and one is enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.checks import Check, Tally
from verify.records import CheckClaim, Finding
from verify.statistics.trace import Trace, by_row

ROUNDING = 1e-6
"""A log-ratio within this, times the size of its two logarithms, may be on either side of 0 by rounding."""

KINDS = (
    "fewer than 1 or more than N + 1 tokens",
    "a node kept below a refused one",
    "a length that is not the nodes kept and one more",
    "a kept node whose token is not emitted",
    "a token that is not finite, or not in the vocabulary",
    "a token to which the target gives no mass",
    "a node refused whose acceptance is 1",
    "a node kept whose acceptance is 0",
    "a recorded acceptance that is no probability",
    "a replacement where the target does not exceed the draft",
)


@dataclass(frozen=True, eq=False)
class Violated(Tally):
    """``counts`` (kinds,): rows of each kind of violation; ``rows``: those with any."""

    counts: Tensor
    rows: int


@dataclass(frozen=True)
class Violating:
    """Rows of a trace by kind of violation. ``token_rule``: acceptances are min(1, target / draft), and replacements
    are drawn from (target - draft)+; otherwise acceptances are those recorded, and replacements anything.
    """

    token_rule: bool = True

    def __call__(self, sample: Trace, truth: Any, tape: Tape) -> Violated:
        found = torch.stack([*_shape(sample), *_tokens(sample), *_coins(sample, self.token_rule)], 1)
        return Violated(len(sample), found.sum(0), int(found.any(1).sum()))


def _shape(trace: Trace) -> list[Tensor]:
    count, nodes = trace.kept.sum(1), trace.nodes
    orphan = trace.kept & ~trace.tossed
    # A rule need not draw a bonus after a chain that was kept whole.
    no_bonus = (count == nodes) & (trace.length == nodes)
    same = (trace.emitted[:, :-1] == trace.drafted).reshape(len(trace), nodes, -1).all(-1)
    lost = trace.kept & ~same if trace.chain else torch.zeros_like(trace.kept)
    return [
        (trace.length < 1) | (trace.length > nodes + 1),
        orphan.any(1),
        (trace.length != count + 1) & ~no_bonus,
        lost.any(1),
    ]


def _tokens(trace: Trace) -> list[Tensor]:
    """Unreadable tokens; and those of mass zero, where the target's law of them is at hand."""
    rows, position = torch.nonzero(trace.context >= 0, as_tuple=True)
    law = by_row(trace.target, rows, trace.context[rows, position])
    sane, value = readable(trace.emitted[rows, position], law)
    never = torch.zeros(len(trace), dtype=torch.bool)
    nothing = torch.isneginf(law.log_prob(value)) & sane
    return [never.index_put((rows[bad],), torch.tensor(True)) for bad in (~sane, nothing)]


def readable(value: Tensor, law: Law) -> tuple[Tensor, Tensor]:
    """Which values (*batch) can be looked up in the law, and the values with others put in place of the rest."""
    if isinstance(law, Categorical):
        sane = (value >= 0) & (value < law.probs.shape[-1])
        return sane, torch.where(sane, value, 0)
    dims = len(law.event_shape)
    sane = torch.isfinite(value).flatten(value.dim() - dims).all(-1) if dims else torch.isfinite(value)
    return sane, torch.where(sane.reshape(*sane.shape, *(1,) * dims), value, 0.0)


def _coins(trace: Trace, token_rule: bool) -> list[Tensor]:
    never, clean = torch.zeros(len(trace), dtype=torch.bool), trace.log_accept
    bad = never
    if clean is not None:
        bad = ((clean > ROUNDING) | torch.isnan(clean)).logical_and(trace.tossed).any(1)
    if not token_rule:
        if clean is None:
            return [never, never, bad, never]
        refused, kept = trace.tossed & ~trace.kept, trace.tossed & trace.kept
        return [(refused & (clean >= 0)).any(1), (kept & torch.isneginf(clean)).any(1), bad, never]
    if not trace.chain:
        return [never, never, bad, never]
    room = ROUNDING * (1 + trace.draft.log_prob(trace.drafted).abs())
    refused, kept = trace.tossed & ~trace.kept, trace.tossed & trace.kept
    wrong = [(refused & (trace.log_ratio > room)).any(1), (kept & torch.isneginf(trace.log_ratio)).any(1)]
    return [*wrong, bad, _beyond(trace)]


def _beyond(trace: Trace) -> Tensor:
    """Rows whose replacement has target <= draft, by more than rounding."""
    rows, node = trace.refused
    target, draft = (by_row(law, rows, node) for law in (trace.target, trace.draft))
    sane, value = readable(trace.emitted[rows, node], target)
    top, other = target.log_prob(value), draft.log_prob(value)
    outside = torch.isneginf(top) | (top - other < -ROUNDING * (1 + other.abs()))
    return torch.zeros(len(trace), dtype=torch.bool).index_put((rows,), outside & sane)


@dataclass(frozen=True)
class Violations(Check):
    """Counts of what a lossless verifier never does; p-value 0 if there is any, else 1.

    By the ``token_rule`` a node is kept for certain where target >= draft, never where the target is 0, and replaced
    only where target > draft. Comparisons leave room for rounding, so that single precision is no violation.
    """

    token_rule: bool = True
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="impossible tokens, impossible coins, replacements outside the residual, records that contradict",
        blind_to="everything that may happen, however often it does",
    )

    @property
    def statistic(self) -> Violating:
        return Violating(self.token_rule)

    def judge(self, tally: Violated, alpha: float) -> Finding:
        found = {name: int(count) for name, count in zip(KINDS, tally.counts.tolist(), strict=True) if count}
        return Finding(
            verifier="",
            scenario="",
            check="violations",
            statistic=float(tally.rows),
            p_value=0.0 if tally.rows else 1.0,
            alpha=alpha,
            n=tally.n,
            seed=0,
            note="; ".join(f"{name}: {count}" for name, count in found.items()) or "none",
            metric="probability of a violation",
            smallest=min(1.0, math.log(10) / max(1, tally.n)),
        )
