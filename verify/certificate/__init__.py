"""Certificates for the rules of the catalogue: a rule beside an exact one, on the same drafts and the same noise."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from distributions.law import Law
from distributions.model import Model
from distributions.tape import Tape
from verify.certificate.shared_tape import SharedTape
from verify.checks.battery import stamp
from verify.checks.coupling import Block, Coupling, Mismatch
from verify.checks.white_box import WhiteBox
from verify.decode import parents, policy, propose
from verify.engine import tallied
from verify.records import Counterexample, Draft, Finding, Outcome, Verdict
from verify.residual import log_ratio
from verify.verifier import Verifier

PILOT = 1024
"""Rows that show whether a rule's acceptance is a function of the draft."""
SEEDS, SHARDS = 3, 1 << 24
"""Seeds of the tapes of one shard, and the shards of one seed, so that none is used twice."""


class Problem(Protocol):
    """Drafts for a verifier, and the target's law on them: a frozen dataclass that processes can be sent."""

    def __call__(self, verifier: Verifier, rows: int, tape: Tape) -> tuple[Draft, Law]:
        """``rows`` independent drafts, and the target with batch (rows, N + 1)."""
        ...


@dataclass(frozen=True, eq=False)
class OfLaws:
    """Nodes that are independent draws of one law, held against one target; both of batch ()."""

    draft: Law
    target: Law
    nodes: int = 1

    def __call__(self, verifier: Verifier, rows: int, tape: Tape) -> tuple[Draft, Law]:
        index = torch.zeros(rows, self.nodes + 1, dtype=torch.long)
        prior = self.draft[None][index[:, : self.nodes]]
        return Draft(prior.sample(tape, "draft"), prior, parents(verifier, self.nodes)), self.target[None][index]


@dataclass(frozen=True, eq=False)
class OfModels:
    """A draft of ``nodes`` nodes at the start of a sequence of two models."""

    drafter: Model[Any]
    target: Model[Any]
    nodes: int = 2

    def __call__(self, verifier: Verifier, rows: int, tape: Tape) -> tuple[Draft, Law]:
        shape = parents(verifier, self.nodes)
        draft = propose(self.drafter, self.drafter.start(rows), shape, tape, policy(verifier))
        return draft, self.target.law(self.target.start(rows), draft.value, draft.parent)


@dataclass(frozen=True, eq=False)
class Beside:
    """A source for the engine: blocks of ``verifier``, and of ``reference`` on the same drafts and a ``SharedTape``.

    ``names``: what the reference calls the verifier's sites, where they differ. Every row is a run of its own: row r of
    shard s depends on (seed, s, r) alone, as far as the verifier keeps its rows apart.
    """

    verifier: Verifier
    reference: Verifier
    problem: Problem
    rows: int = 65_536
    seed: int = 0
    names: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, shard: int) -> tuple[Block, Block]:
        every = torch.arange(self.rows)
        draft, target, ours, theirs = self.runs(shard, every)
        label = torch.stack((torch.full_like(every, shard), every), -1)
        both = [Block(target.token(made.value), made.length, made.kept, label) for made in (ours, theirs)]
        if self.opens:
            astray = ~ours.kept[:, 0] & (exact_acceptance(ours.value, draft.law, target) < 0)
            both[0] = replace(both[0], log_accept=ours.log_accept[:, 0], astray=astray)
            both[1] = replace(both[1], log_accept=exact_acceptance(draft.value, draft.law, target))
        return both[0], both[1]

    def runs(self, shard: int, rows: Tensor, other: int = 0) -> tuple[Draft, Law, Outcome, Outcome]:
        """The drafts of some rows (n,) of a shard, the target's law on them, and what the two rules make of them.

        ``other``: another number gives the same drafts other noise.
        """
        # Drafts are seeded apart, lest a rule with a site named "draft" meet its own draft's noise.
        seed = SEEDS * (self.seed * SHARDS + shard)
        draft, target = self.problem(self.verifier, len(rows), SharedTape(seed, rows))
        noise = seed + 1 + other
        tapes = SharedTape(noise, rows, names=self.names), SharedTape(noise, rows)
        rules = self.verifier, self.reference
        ours, theirs = (rule.verify(draft, target, tape) for rule, tape in zip(rules, tapes, strict=True))
        return draft, target, ours, theirs

    @cached_property
    def opens(self) -> bool:
        """Whether ``log_accept`` can be held against min(1, target / draft): it is a function of the draft, as far as
        a second run on other noise tells; what is kept is emitted as it was drafted; and drafts have their own law.
        """
        some = torch.arange(min(self.rows, PILOT))
        draft, _, once, _ = self.runs(0, some)
        again = self.runs(0, some, other=1)[2]
        kept = once.kept[:, 0]
        return (
            not hasattr(self.verifier, "drafts")
            and torch.equal(once.log_accept[:, 0], again.log_accept[:, 0])
            and torch.equal(once.value[kept, 0], draft.value[kept, 0])
        )


def exact_acceptance(value: Tensor, draft: Law, target: Law) -> Tensor:
    """log min(1, target / draft) of the first of the values, as the first node; (rows,)."""
    return log_ratio(value[:, :1], target[:, :1], draft[:, :1]).clamp(max=0)[:, 0]


def certificate(
    beside: Beside,
    shards: Iterable[int] = range(1),
    *,
    within: float = 1e-3,
    room: float = 0.0,
    delta: float = 1e-6,
    executor: Executor | None = None,
) -> Verdict:
    """What runs beside an exact reference prove of a rule: bounds on the total variation of the block of one round.

    ``lossy``: the acceptance at the drafts certifies a bias (``WhiteBox.lower``; asked only where
    ``Beside.opens``, and it takes ``log_accept`` at its word, which a universal law of the catalogue tests).
    ``lossless``: TV <= P(blocks differ) <= ``within`` (``Coupling``). ``inconclusive``: neither; a rule that is exact
    but draws otherwise than the reference ends here, and no number of mismatches alone makes a rule lossy. Both bounds
    hold together at confidence 1 - ``delta``. The first run that differs is named, and a snippet replays it. ``room``:
    rounding to be forgiven, see ``Mismatches``; 0 asks for the same bits.
    """
    began = time.perf_counter()
    coupling, box = Coupling(room, delta / 2), WhiteBox(delta=delta / 2)
    counted: Mapping[Any, Any] = tallied(
        [coupling.statistic, *([box.statistic] if beside.opens else [])], beside, shards, executor
    )
    tally: Mismatch = counted[coupling.statistic]
    found: list[Finding] = [coupling.judge(tally, 0.0)]
    lower = 0.0
    if beside.opens:
        found.append(box.judge(counted[box.statistic], 0.0))
        lower = box.lower(counted[box.statistic])
    name, beside_what = type(beside.verifier).__name__, type(beside.reference).__name__
    bound = found[0].bound or 0.0
    status = "lossy" if lower > 0 else "lossless" if bound <= within else "inconclusive"
    needs = ""
    if status == "inconclusive":
        runs = math.ceil(math.log(2 / delta) / within)
        needs = f"{runs} runs without a mismatch instead of {tally.n} with {tally.emitted}: more shards, or a reference"
        needs += " that draws as this rule does (names= maps sites)"
    return Verdict(
        status=status,
        bias_lower=lower,
        bias_upper=bound,
        metric="tv",
        evidence="coupling",
        confidence=1 - delta,
        counterexample=_witness(tally, lower or tally.emitted / tally.n),
        needs=needs,
        findings=tuple(
            stamp(item, verifier=name, scenario=f"beside {beside_what}", seed=beside.seed) for item in found
        ),
        subject=name,
        scope=f"{tally.n} runs beside {beside_what}, {'the same bits' if not room else f'up to {room:g} roundings'}",
        notes=tuple(item.note for item in found),
        seconds=time.perf_counter() - began,
    )


def _witness(tally: Mismatch, size: float) -> Counterexample | None:
    """The first run that differs. ``beside`` is the source that was certified."""
    if tally.first.label is None:
        return None
    shard, row = tally.first.label
    snippet = f"""draft, target, *both = beside.runs({shard}, torch.tensor([{row}]))
for made in both:
    emitted = target.token(made.value)[0, : int(made.length)]
    print(made.log_accept[0].exp().tolist(), made.kept[0].tolist(), emitted.tolist())"""
    return Counterexample(size, snippet, where=f"shard {shard}, row {row}", sizes={"shard": shard, "row": row})
