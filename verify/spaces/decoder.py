"""Judges a function that decodes a whole sequence from a target and a drafter."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from distributions.tape import GeneratorTape
from verify.checks.martingale import Departure, departures
from verify.errors import SubjectError, name_of, raised
from verify.foreign.interpose import Room
from verify.foreign.leaf import NotUnderstood
from verify.foreign.plain import seeded
from verify.foreign.runs import exact_runs, time_limit
from verify.progress import track
from verify.records import Counterexample, Verdict
from verify.spaces.discrete import EXACT, tokens_of, tolerance
from verify.spaces.sampled import ALPHA, Judgement, judge_samples

SECONDS = {"quick": 30.0, "thorough": 300.0}
DRAWS = {"quick": 1_000, "thorough": 10_000}
LARGE_VOCAB, LARGE_LENGTH = 16, 12
TELLING = ("random", "peaked", "zeros", "reversed")


@dataclass(frozen=True, eq=False)
class Tables:
    """A model over prefixes of any length: a hash of the whole prefix chooses the row, so that no token can be lost.

    ``rows`` (R, V). Called with a prefix it returns a fresh Tensor (V,). Raises SubjectError for what is no prefix.
    """

    rows: Tensor
    vocab: int = field(init=False)
    _each: tuple[Tensor, ...] = field(
        init=False, repr=False
    )  # rows made beforehand: called at every draft of every leaf

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocab", self.rows.shape[-1])
        object.__setattr__(self, "_each", tuple(row.clone() for row in self.rows))

    def __call__(self, prefix: Any) -> Tensor:
        return self.law(self._tokens(prefix)).clone()

    def _tokens(self, prefix: Any) -> tuple[int, ...]:
        vocab = self.vocab
        try:
            tokens = tuple(int(token) for token in prefix)
        except (TypeError, ValueError):
            raise SubjectError(
                f"the model was called with {type(prefix).__name__}; call it with a tuple of token ids"
            ) from None
        if any(not 0 <= token < vocab for token in tokens):
            raise SubjectError(
                f"the model was called with the prefix {tokens}, whose ids pass 0..{vocab - 1}; mend the prefix"
            )
        return tokens

    def law(self, prefix: tuple[int, ...]) -> Tensor:
        code = 0
        for token in prefix:
            code = (code * 1_000_003 + token + 1) % 2_147_483_647
        return self._each[code % len(self._each)]

    def sequences(self, length: int) -> dict[tuple[int, ...], float]:
        """The exact law of sequences of this length."""
        found: dict[tuple[int, ...], float] = {(): 1.0}
        for _ in range(length):
            found = {
                (*prefix, token): mass * float(chance)
                for prefix, mass in found.items()
                for token, chance in enumerate(self.law(prefix))
                if chance > 0
            }
        return found


@dataclass(frozen=True, eq=False)
class Pair:
    """A drafter and a target to decode with."""

    drafter: Tables
    target: Tables
    name: str
    length: int

    @property
    def vocab(self) -> int:
        return self.target.vocab

    def call(self, fn: Callable[..., Any]) -> tuple[int, ...]:
        tokens = tokens_of(fn(self.target, self.drafter, self.length), self.vocab, 10**6)
        if len(tokens) != self.length:
            raise SubjectError(
                f"the function returned {len(tokens)} tokens and was asked for {self.length}; cut to length"
            )
        return tokens


def pairs(vocab: int, length: int, seed: int = 0) -> list[Pair]:
    """Pairs of one size, from harmless to hostile."""
    tape = GeneratorTape(seed)
    count = 2 * (vocab + 1) ** 2

    def rows(power: float, zeros: float = 0.0) -> Tensor:
        table = tape.race("rows", (count, vocab)) ** power * (tape.uniform("zero", (count, vocab)) >= zeros)
        table[table.sum(-1) == 0, 0] = 1.0
        return table / table.sum(-1, keepdim=True)

    equal = rows(1.0)
    kinds = {
        "random": (rows(1.0), rows(1.0)),
        "peaked": (rows(3.0), rows(3.0)),
        "zeros": (rows(1.0, 0.4), rows(1.0, 0.4)),
        "equal laws": (equal, equal),
        "reversed": (equal.flip(-1), equal),
        "point masses": (rows(1.0, 0.95), rows(1.0, 0.95)),
        "ties": (torch.full((count, vocab), 1.0 / vocab, dtype=torch.float64), rows(0.0, 0.3)),
    }
    return [Pair(Tables(drafter), Tables(target), name, length) for name, (drafter, target) in kinds.items()]


@dataclass(frozen=True, eq=False)
class DecodedLaw:
    """The exact law of decoded sequences on one pair; ``slack`` as in ``ProblemLaw``."""

    pair: Pair
    law: Mapping[tuple[int, ...], float]
    slack: float
    cut_short: bool

    @property
    def bias(self) -> float:
        """Total variation from the target's law of sequences."""
        truth = self.pair.target.sequences(self.pair.length)
        return sum(abs(self.law.get(key, 0.0) - truth.get(key, 0.0)) for key in {*truth, *self.law}) / 2

    def departure(self) -> tuple[tuple[int, ...], list[float], list[float]] | None:
        """(prefix, law of the next token found, wanted) at the first position that departs, at its worst prefix."""
        for position in range(self.pair.length):
            reach: dict[tuple[int, ...], list[float]] = {}
            for tokens, mass in self.law.items():
                reach.setdefault(tokens[:position], [0.0] * self.pair.vocab)[tokens[position]] += mass
            worst: tuple[float, tuple[int, ...], list[float], list[float]] | None = None
            for prefix, masses in reach.items():
                total = sum(masses)
                wanted = self.pair.target.law(prefix).tolist()
                size = sum(abs(m - total * w) for m, w in zip(masses, wanted, strict=True)) / 2
                if size > max(2 * self.slack, 1e-9) and (worst is None or size > worst[0]):
                    worst = (size, prefix, [m / total for m in masses], wanted)
            if worst is not None:
                return worst[1:]
        return None


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
        laws, precisions = _laws(fn, vocab, length, budget, seed)
        verdict = _exact_verdict(laws, tolerance(precisions | {torch.float64}) * length, (vocab, length), seed)
        if verdict.status != "lossy":
            verdict = _at_size(
                verdict, judge_samples(_Sampled(fn, LARGE_VOCAB, LARGE_LENGTH, seed + 5), DRAWS[budget], seed)
            )
    except NotUnderstood as reason:
        verdict = _sampled(fn, vocab, length, str(reason), budget, seed)
    return replace(verdict, subject=name_of(fn), seconds=time.monotonic() - started)


def _exact_verdict(laws: list[DecodedLaw], allowed: float, asked: tuple[int, int], seed: int) -> Verdict:
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
        return Verdict("lossy", *ends, evidence=evidence, counterexample=_counterexample(case, seed), **common)
    if cut and not any((item.pair.vocab, item.pair.length) == asked for item in full):
        upper = max(min(1.0, item.bias + item.slack) for item in cut)
        needs = f"vocab {asked[0]} and length {asked[1]} take longer than the budget; use less, or budget='thorough'"
        return Verdict("inconclusive", 0.0, upper, evidence="enumeration", needs=needs, **common)
    bias = max(item.bias for item in full)
    return Verdict("lossless", bias, bias, evidence="exact", **common)


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


def _laws(
    fn: Callable[..., Any], vocab: int, length: int, budget: str, seed: int
) -> tuple[list[DecodedLaw], set[torch.dtype]]:
    deadline = Room.now() + SECONDS[budget]
    sizes = sorted(
        {(2, min(2, length)), (2, min(3, length)), (vocab, min(2, length)), (vocab, length)}, key=lambda s: s[0] ** s[1]
    )
    work = [pair for size in sizes for pair in pairs(*size, seed)]
    if budget == "quick":  # the largest size takes almost all of the time: its four most telling pairs
        work = [pair for pair in work if (pair.vocab, pair.length) != (vocab, length) or pair.name in TELLING]
    for shim in (False, True):
        try:
            laws: list[DecodedLaw] = []
            with Room(fn, shim_float=shim) as room:
                for place, pair in enumerate(track(work, label="enumerating")):
                    # What is left of the time, shared evenly, but never so little that nothing at all is seen.
                    now = room.now()
                    size = (pair.vocab, pair.length)
                    if any(law.bias > 1e-3 + law.slack and (law.pair.vocab, law.pair.length) != size for law in laws):
                        break  # a smaller size shows it already
                    laws.append(
                        decoded_law(fn, pair, room, now + max(0.5, (deadline - now) * 2 / (len(work) - place + 1)))
                    )
            if room.escapes:
                raise NotUnderstood("; ".join(dict.fromkeys(room.escapes)))
            return laws, room.precisions
        except NotUnderstood as reason:
            if shim or "plain float" not in str(reason):
                raise
    raise AssertionError("unreachable")


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

    def departures(self, emitted: list[tuple[int, ...]]) -> list[Departure]:
        pair = self.pair
        return departures(emitted, pair.target.law, pair.drafter.law, self.vocab)


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
    departed = case.departure()
    pair, where, found, wanted = case.pair, "", {}, {}
    if departed is not None:
        prefix, law, truth = departed
        context = f"after {list(prefix)}" if prefix else "at the start"
        show = [[float(f"{value:.6g}") for value in one] for one in (law, truth)]
        where = f"the law at position {len(prefix) + 1} {context} is {show[0]}, the target's {show[1]}"
        found = {str(token): mass for token, mass in enumerate(law)}
        wanted = {str(token): mass for token, mass in enumerate(truth)}
    place = [item.name for item in pairs(2, 2)].index(pair.name)
    snippet = (
        "from verify.foreign.interpose import Room\nfrom verify.spaces.decoder import decoded_law, pairs\n"
        f"pair = pairs({pair.vocab}, {pair.length}, {seed})[{place}]  # {pair.name}\n"
        f"with Room(fn) as room:\n    print(decoded_law(fn, pair, room).bias)  # {case.bias:.6g}"
    )
    return Counterexample(case.bias, snippet, where, {"vocab": pair.vocab, "length": pair.length}, found, wanted)
