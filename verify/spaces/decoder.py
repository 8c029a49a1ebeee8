"""Judges a function that decodes a whole sequence from a target and a drafter."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from verify.checks import martingale
from verify.diagnosis.departure import Departure
from verify.errors import name_of, raised
from verify.foreign.attempt import attempt
from verify.foreign.interpose import Room
from verify.foreign.leaf import NotUnderstood
from verify.foreign.plain import seeded
from verify.foreign.runs import exact_runs, time_limit
from verify.progress import track
from verify.records import Counterexample, Verdict
from verify.spaces.decoder_pairs import Pair, Tables, drafts_at_once, pairs
from verify.spaces.problem_law import EXACT, tolerance
from verify.spaces.sampled import ALPHA, Judgement, judge_samples

__all__ = ["DecodedLaw", "Pair", "Tables", "decoded_law", "judge_decoder", "pairs"]

SECONDS = {"quick": 30.0, "thorough": 300.0}
DRAWS = {"quick": 1_000, "thorough": 10_000}
LARGE_VOCAB, LARGE_LENGTH = 16, 12
TELLING = ("random", "peaked", "zeros", "reversed")


@dataclass(frozen=True, eq=False)
class DecodedLaw:
    """The exact law of decoded sequences on one pair; ``slack`` as in ``ProblemLaw``."""

    pair: Pair
    law: Mapping[tuple[int, ...], float]
    slack: float
    cut_short: bool

    @cached_property
    def vector(self) -> Tensor:
        """The law (V**length,), the first token most significant."""
        return self.pair.vector(self.law)

    @cached_property
    def truth(self) -> Tensor:
        """The target's law (V**length,)."""
        return self.pair.vector(self.pair.target.sequences(self.pair.length))

    @property
    def bias(self) -> float:
        """Total variation from the target's law of sequences."""
        return float((self.vector - self.truth).abs().sum() / 2)

    def departure(self) -> Departure | None:
        """The first position that departs, at its worst prefix. What was drafted cannot be seen."""
        for position in range(self.pair.length):
            reach: dict[tuple[int, ...], Tensor] = {}
            for tokens, mass in self.law.items():
                reach.setdefault(tokens[:position], torch.zeros(self.pair.vocab).double())[tokens[position]] += mass
            worst = max(reach, key=lambda prefix: self._departs(prefix, reach[prefix]))
            if self._departs(worst, reach[worst]) > max(2 * self.slack, 1e-9):
                return Departure(worst, reach[worst] / reach[worst].sum(), self.pair.target.law(worst))
        return None

    def _departs(self, prefix: tuple[int, ...], masses: Tensor) -> float:
        """By how much the masses of the next token differ from the target's after a prefix."""
        return float((masses - masses.sum() * self.pair.target.law(prefix)).abs().sum() / 2)


def decoded_law(
    fn: Callable[..., Any], pair: Pair, room: Room, deadline: float = math.inf, leaves: int = 10**6
) -> DecodedLaw:
    """The exact law of ``fn`` on a pair. Raises as ``verify.spaces.discrete.law_of``."""
    runs = exact_runs(
        lambda: pair.call(fn), room, deadline=deadline, max_leaves=leaves, rerun=1 if pair.length < 3 else 4
    )
    crashed = sum(share for share, _ in runs.raised)
    if crashed > tolerance(room.precisions):
        error = max(runs.raised, key=lambda item: item[0])[1]
        raise raised(error, f"pair {pair.name!r} (vocab {pair.vocab}, length {pair.length})") from error
    return DecodedLaw(pair, runs.law, runs.dropped + runs.error + crashed, runs.cut_short)


def judge_decoder(
    fn: Callable[..., Any], *, vocab: int = 3, length: int = 4, budget: str = "quick", seed: int = 0
) -> Verdict:
    """The verdict on ``fn(target, drafter, length) -> ids``.

    Exact laws of whole sequences, small sizes first, as far as the time goes; and one larger sampled pair.
    """
    started = time.monotonic()
    try:
        laws, room = attempt(fn, lambda room: _laws(room, fn, vocab, length, budget, seed))
        allowed = tolerance(room.precisions | {torch.float64}) * length
        verdict = _exact_verdict(fn, laws, allowed, (vocab, length), seed)
        if verdict.status != "lossy":
            verdict = _at_size(
                verdict, judge_samples(_Sampled(fn, LARGE_VOCAB, LARGE_LENGTH, seed + 5), DRAWS[budget], seed)
            )
    except NotUnderstood as reason:
        verdict = _sampled(fn, vocab, length, str(reason), budget, seed)
    return replace(verdict, subject=name_of(fn), seconds=time.monotonic() - started)


def _exact_verdict(
    fn: Callable[..., Any], laws: list[DecodedLaw], allowed: float, asked: tuple[int, int], seed: int
) -> Verdict:
    full = [item for item in laws if item.slack <= EXACT]
    cut = [item for item in laws if item.slack > EXACT]
    notes = ["uniforms of float32 and float64 count as continuous"]
    if cut:
        worst = max(cut, key=lambda item: item.slack)
        notes.append(
            f"time ran out on {len(cut)} of {len(laws)} pairs (at worst mass {worst.slack:.2g} not followed, at "
            f"vocabulary {worst.pair.vocab}, length {worst.pair.length}); the verdict rests on the other {len(full)}"
        )
    sizes = ", ".join(dict.fromkeys(f"{item.pair.vocab} x {item.pair.length}" for item in full))
    common: dict[str, Any] = dict(
        metric="tv",
        confidence=1.0,
        scope=f"vocabulary x length {sizes}: {len(full)} pairs, tables in float64",
        notes=tuple(notes),
    )
    wrong = [item for item in laws if item.bias > allowed + item.slack]
    if wrong:
        worst = max(wrong, key=lambda item: item.bias - item.slack)
        plain = [item for item in wrong if item.bias >= min(1e-3, worst.bias / 2)]
        case = min(plain, key=lambda item: (item.pair.vocab, item.pair.length, -item.bias))
        ends, evidence = (worst.bias, worst.bias), "exact"
        if worst.slack > EXACT:
            ends, evidence = (worst.bias - worst.slack, min(1.0, worst.bias + worst.slack)), "enumeration"
        common.update(counterexample=_counterexample(case, seed), diagnosis=_diagnosis(fn, full, allowed, seed))
        return Verdict("lossy", *ends, evidence=evidence, **common)
    if cut and not any((item.pair.vocab, item.pair.length) == asked for item in full):
        upper = max(min(1.0, item.bias + item.slack) for item in cut)
        needs = f"vocab {asked[0]} and length {asked[1]} take longer than the budget; use less, or budget='thorough'"
        return Verdict("inconclusive", 0.0, upper, evidence="enumeration", needs=needs, **common)
    bias = max(item.bias for item in full)
    return Verdict("lossless", bias, bias, evidence="exact", **common)


def _diagnosis(fn: Callable[..., Any], laws: list[DecodedLaw], allowed: float, seed: int) -> str:
    """The known defect that has these laws."""
    from verify.diagnosis.nearest import diagnose_decoder  # only a wrong law pays for loading it

    with seeded(seed), time_limit():
        heard = max((drafts_at_once(fn, law.pair) for law in laws), default=0)
    return diagnose_decoder(laws, allowed, heard)


def _at_size(verdict: Verdict, judgement: Judgement) -> Verdict:
    """The verdict with what samples of the larger pair add to it."""
    size = f"vocabulary {LARGE_VOCAB}, length {LARGE_LENGTH}"
    if judgement.departure is None:
        seen = f"nothing seen, down to a bias of {judgement.smallest:.2g}"
        return replace(verdict, notes=(*verdict.notes, f"{judgement.n} runs at {size}: {seen}"))
    where = f"only at {size}: {judgement.departure}"
    snippet = f"from verify.spaces.decoder import pairs\npair = pairs({LARGE_VOCAB}, {LARGE_LENGTH}, 5)[2]"
    case = Counterexample(judgement.lower, snippet, where, {"vocab": LARGE_VOCAB, "length": LARGE_LENGTH})
    return replace(
        verdict,
        status="lossy",
        bias_lower=judgement.lower,
        bias_upper=1.0,
        evidence="sampled",
        confidence=1 - ALPHA,
        counterexample=case,
        needs="",
    )


def _laws(room: Room, fn: Callable[..., Any], vocab: int, length: int, budget: str, seed: int) -> list[DecodedLaw]:
    """The laws on pairs of all sizes, small ones first, until one of these shows a bias or the time is over."""
    deadline = room.now() + SECONDS[budget]
    sizes = sorted(
        {(2, min(2, length)), (2, min(3, length)), (vocab, min(2, length)), (vocab, length)}, key=lambda s: s[0] ** s[1]
    )
    work = [pair for size in sizes for pair in pairs(*size, seed)]
    if budget == "quick":  # the largest size takes almost all of the time: its four most telling pairs
        work = [pair for pair in work if (pair.vocab, pair.length) != (vocab, length) or pair.name in TELLING]
    laws: list[DecodedLaw] = []
    for place, pair in enumerate(track(work, label="enumerating")):
        # What is left of the time, shared evenly, but never so little that nothing at all is seen.
        now = room.now()
        size = (pair.vocab, pair.length)
        if size == (vocab, length) and any(law.bias > 1e-3 + law.slack for law in laws if law.pair.length < length):
            break  # a smaller size shows it already
        laws.append(decoded_law(fn, pair, room, now + max(0.5, (deadline - now) * 2 / (len(work) - place + 1))))
    return laws


@dataclass(frozen=True)
class _Sampled:
    """Samples of a decoder, in the form that ``judge_samples`` takes: no drafted block is visible, so none is given."""

    fn: Callable[..., Any]
    vocab: int
    length: int
    seed: int

    @property
    def pair(self) -> Pair:
        return pairs(self.vocab, self.length, self.seed)[2]

    def sample(self, n: int, seed: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        pair = self.pair
        found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        with seeded(seed):
            for _ in range(n):
                try:
                    with time_limit():
                        found.append(((), pair.call(self.fn)))
                except (Exception, NotUnderstood) as error:
                    raise raised(error, f"a pair of vocabulary {self.vocab}, length {self.length}") from error
        return found

    def departures(self, emitted: list[tuple[int, ...]]) -> list[martingale.Departure]:
        pair = self.pair
        return martingale.departures(emitted, pair.target.law, pair.drafter.law, self.vocab)


def _sampled(fn: Callable[..., Any], vocab: int, length: int, reason: str, budget: str, seed: int) -> Verdict:
    notes = (f"the draws could not be enumerated ({reason}); this verdict rests on samples",)
    common: dict[str, Any] = dict(metric="tv", evidence="sampled", confidence=1 - 2 * ALPHA, notes=notes)
    for size in ((vocab, length), (LARGE_VOCAB, LARGE_LENGTH)):
        judgement = judge_samples(_Sampled(fn, *size, seed + 5), 4 * DRAWS[budget], seed)
        if judgement.departure is not None:
            case = Counterexample(
                judgement.lower, "# see below", str(judgement.departure), {"vocab": size[0], "length": size[1]}
            )
            return Verdict(
                "lossy", judgement.lower, 1.0, counterexample=case, scope=f"{size[0]} x {size[1]} sampled", **common
            )
    needs = "draw through torch, numpy or random inside the call, so that the draws can be enumerated"
    return Verdict("inconclusive", 0.0, 1.0, needs=needs, scope=f"{vocab} x {length} sampled", **common)


def _counterexample(case: DecodedLaw, seed: int) -> Counterexample:
    departed, pair = case.departure(), case.pair
    place = [item.name for item in pairs(2, 2)].index(pair.name)
    snippet = (
        "from verify.foreign.interpose import Room\nfrom verify.spaces.decoder import decoded_law, pairs\n"
        f"pair = pairs({pair.vocab}, {pair.length}, {seed})[{place}]  # {pair.name}\n"
        f"with Room(fn) as room:\n    law = decoded_law(fn, pair, room)\nprint(law.bias)  # {case.bias:.6g}"
    )
    sizes = {"vocab": pair.vocab, "length": pair.length}
    if departed is None:
        return Counterexample(case.bias, snippet, "", sizes)
    return Counterexample(case.bias, snippet, str(departed), sizes, *departed.masses())
