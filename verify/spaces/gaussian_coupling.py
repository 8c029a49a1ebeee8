"""Coupling a third-party sampler of Gaussian laws with the exact rule that it resembles most, on its own draws."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import GeneratorTape, RecordingTape, Tape
from verify.certificate.following_tape import FollowingTape
from verify.checks.coupling import Block, Coupling, Mismatch
from verify.checks.excess_acceptance import same
from verify.errors import SubjectError
from verify.foreign.followed import Followed, NotCoupled
from verify.records import Claim, Draft, Finding, Outcome
from verify.residual import ThinningCapped, conclude
from verify.spaces.gaussian_pairs import Pair
from verify.spaces.gaussian_rows import SMALL_CALLS, Subject
from verify.spaces.gaussian_rules import single, verified
from verify.verifier import Verifier, catalog

ROOM = 256.0
"""Roundings by which outputs may differ and count as equal."""
PILOT = 512
"""Rows on which the reference is chosen."""
FEW = 0.02
"""The share of mismatches on those above which nothing is coupled."""
LARGE = 8192
"""Rows of the large calls."""


@dataclass(frozen=True)
class OwnDraw:
    """Draw the target and look at no draft: exact, and the reference of functions that do no more."""

    claim: ClassVar[Claim] = Claim(exact=True, reference="the target itself", needs="any")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The target's own value at the first node. ``target`` has batch (rows, N + 1)."""
        refused = torch.zeros(draft.value.shape[:2], dtype=torch.bool)
        return conclude(
            draft, target, refused, refused.double().log(), tape, lambda law, _, some, site: law.sample(some, site)
        )


@dataclass(frozen=True)
class Reference:
    """An exact rule, and the sites at which it keeps where the function's uniform is large."""

    rule: Verifier
    mirrored: frozenset[str] = frozenset()

    def __str__(self) -> str:
        turned = f" with 1 - u at {', '.join(sorted(self.mirrored))}" if self.mirrored else ""
        return type(self.rule).__name__ + turned

    def block(self, pair: Pair, drafted: Tensor, follows: Followed, seed: int) -> Block:
        """What the rule makes of the drafts (n, dim) on the draws of the call that was followed.

        Raises TypeError where the rule does not take such laws.
        """
        fresh = GeneratorTape(seed)
        tape = FollowingTape.of(follows.draws, len(drafted), fresh, self.mirrored)
        made = verified(self.rule, pair.draft, pair.target, drafted.double().unsqueeze(1), tape)
        return replace(Block.of(made.value[:, 0]), kept=made.kept)


@dataclass(frozen=True)
class Coupled:
    """The findings of a coupling with ``reference``, one a pair, each at its share of the confidence."""

    reference: str
    findings: tuple[Finding, ...]

    @property
    def bound(self) -> float:
        """On the total variation, of every pair."""
        return max(item.bound for item in self.findings if item.bound is not None)

    @property
    def rows(self) -> int:
        """Of the pair that has the fewest."""
        return min(item.n for item in self.findings)


def exact_rules() -> Iterator[Verifier]:
    """The rules of the catalogue that are exact on Gaussian laws in one round of one draft, and ``OwnDraw``."""
    for kind in catalog().values():
        claim = kind.claim
        if claim.exact and claim.level == "round" and claim.laws in ("any", "gaussian") and single(kind()):
            yield kind()
    yield OwnDraw()


def couple(subject: Subject, chosen: Sequence[Pair], rows: int, seconds: float, delta: float, seed: int) -> Coupled:
    """Runs ``subject`` beside the exact rule that mismatches it least on a pilot run, on fresh rows of every pair.

    The bounds hold together at confidence 1 - ``delta``, for rows that are independent of each other: drafts are fresh,
    the reference is chosen before them, and it emits the target's law whatever the function does (``FollowingTape``).
    ``seconds``: of the processor, for all pairs; slow functions get fewer rows. Raises NotCoupled where the draws
    cannot be followed, or no reference comes near.
    """
    runs = Runs(subject, Followed(GeneratorTape(4 * seed + 3)), seed)
    kinds: dict[bool, Reference] = {}
    names, findings = [], []
    check = Coupling(ROOM, delta / len(chosen))
    began = time.process_time()
    for place, pair in enumerate(chosen):
        kind = torch.equal(pair.draft.factor, pair.target.factor)
        if kind not in kinds:
            kinds[kind] = runs.nearest(pair)
        sizes = [min(LARGE, rows), *SMALL_CALLS * 4, *[LARGE] * (math.ceil(rows / LARGE) - 1)]
        left = began + seconds - time.process_time()
        tally = runs.beside(pair, sizes, [kinds[kind]], left / (len(chosen) - place))[0]
        findings.append(replace(check.judge(tally, 0.0), scenario=pair.name))
        names.append(str(kinds[kind]))
        if tally.emitted > FEW * tally.n:
            raise NotCoupled(f"differs from {names[-1]} on {pair.name!r}: {_shares(tally)}")
    return Coupled(" and ".join(dict.fromkeys(names)), tuple(findings))


@dataclass(eq=False)
class Runs:
    """Calls of a subject whose draws are followed, each with a seed of its own."""

    subject: Subject
    follows: Followed
    seed: int
    calls: int = 0

    def nearest(self, pair: Pair) -> Reference:
        """The reference with the fewest mismatches on a pilot run. Raises NotCoupled where all have many."""
        every = [Reference(rule, turned) for rule in exact_rules() for turned in self._turns(rule, pair)]
        tallies = self.beside(pair, [PILOT], every, math.inf)
        found = [(tally, reference) for tally, reference in zip(tallies, every, strict=True) if tally.n]
        least, best = min(found, key=lambda item: item[0].emitted)
        if least.emitted > FEW * least.n:
            raise NotCoupled(f"differs from every exact rule, least from {best}: {_shares(least)}")
        return best

    def _turns(self, rule: Verifier, pair: Pair) -> list[frozenset[str]]:
        """Every set of the sites at which the rule draws uniforms."""
        tape = RecordingTape(GeneratorTape(self.seed))
        try:
            verified(rule, pair.draft, pair.target, self._drafts(pair, 256, tape).unsqueeze(1), tape)
        except TypeError:
            return []
        sites = sorted({item.site for item in tape.draws if item.kind == "uniform"})[:3]
        return [frozenset(some) for size in range(len(sites) + 1) for some in itertools.combinations(sites, size)]

    def _drafts(self, pair: Pair, size: int, tape: Tape) -> Tensor:
        return pair.draft[None][torch.zeros(size, dtype=torch.long)].sample(tape, "draft")

    def beside(self, pair: Pair, sizes: Sequence[int], every: Sequence[Reference], seconds: float) -> list[Mismatch]:
        """The mismatches with each reference, over calls of the given sizes, or as many as the seconds allow."""
        statistic, totals = Coupling(ROOM).statistic, [_none()] * len(every)
        deadline = time.process_time() + seconds
        for size in sizes:
            self.calls += 1
            seed = 4 * (self.seed + 1_000_003 * self.calls)
            drafted = self._drafts(pair, size, GeneratorTape(seed)).to(self.subject.dtype)
            try:
                with self.follows.call():
                    emitted = self.subject.call(drafted, pair)
            except SubjectError as error:
                raise NotCoupled(str(error)) from error
            kept = same(emitted, drafted).unsqueeze(-1)
            # Noise of 24 bits makes outputs of 24 bits, whatever they are stored in.
            ours = replace(Block.of(emitted.float() if self.follows.single else emitted), kept=kept)
            for place, reference in enumerate(every):
                try:
                    theirs = reference.block(pair, drafted, self.follows, seed + 1)
                except (TypeError, ThinningCapped):
                    continue
                totals[place] = totals[place] + statistic(ours, theirs, self.follows.tape)
            if time.process_time() > deadline:
                break
        return totals


def _shares(tally: Mismatch) -> str:
    """One row that is kept otherwise puts the draws of all later rows of its call out of step."""
    return f"{tally.emitted / tally.n:.2g} of the rows, {tally.accepted / tally.n:.2g} by acceptance"


def _none() -> Mismatch:
    empty = torch.zeros(0, 1)
    return Coupling().statistic(empty, empty, GeneratorTape())
