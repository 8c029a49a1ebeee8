"""Judging by samples: the one larger problem behind every verdict, and functions whose draws cannot be enumerated."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distributions.tape import GeneratorTape
from verify.checks.martingale import Departure, departures
from verify.errors import raised
from verify.foreign.leaf import NotUnderstood
from verify.foreign.plain import seeded
from verify.foreign.runs import time_limit
from verify.problems import Problem
from verify.records import Counterexample, Verdict

if TYPE_CHECKING:
    from verify.spaces.discrete import ProblemLaw

ALPHA = 1e-7  # false-alarm rate of one sampled judgement
SCREEN = 1e-3  # a feature below this is looked at again on fresh samples
DRAWS = {"quick": 2_500, "thorough": 40_000}
VOCAB, LENGTH = 96, 4  # the size at which every verdict also looks

Row = Callable[[tuple[int, ...]], Tensor]


@dataclass(frozen=True)
class Blocks:
    """A drafter and a target by prefix, and samples of a function's emitted blocks on them."""

    target: Row
    drafter: Row
    vocab: int
    length: int
    call: Callable[[tuple[int, ...]], Any]
    name: str

    def sample(self, n: int, seed: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """``n`` pairs of a drafted and an emitted block, the function drawing from its own generators."""
        from verify.spaces.discrete import tokens_of

        drafts = self._drafts(n, seed)
        found = []
        with seeded(seed + 1):
            for block in drafts:
                try:
                    with time_limit():
                        result = self.call(block)
                except (Exception, NotUnderstood) as error:
                    where = f"{self.name} (vocab {self.vocab}, draft length {self.length})"
                    raise raised(error, where) from error
                found.append((block, tokens_of(result, self.vocab, self.length + 1)))
        return found

    def _drafts(self, n: int, seed: int) -> list[tuple[int, ...]]:
        tape = GeneratorTape(seed)
        blocks: list[tuple[int, ...]] = [()] * n
        for position in range(self.length):
            laws = torch.stack([self.drafter(block) for block in blocks])
            drawn = tape.categorical(f"draft.{position}", laws).tolist()
            blocks = [(*block, token) for block, token in zip(blocks, drawn, strict=True)]
        return blocks

    def departures(self, emitted: Sequence[tuple[int, ...]]) -> list[Departure]:
        return departures(emitted, self.target, self.drafter, self.vocab)


def of_problem(fn: Callable[..., Any], problem: Problem) -> Blocks:
    """The function on one of the small problems."""
    return Blocks(
        lambda prefix: problem.target[len(prefix)][problem.index(prefix)],
        lambda prefix: problem.draft[min(len(prefix), problem.length - 1)][
            problem.index(prefix[: problem.length - 1]) if len(prefix) >= problem.length else problem.index(prefix)
        ],
        problem.vocab,
        problem.length,
        lambda block: problem.call(fn, block)(),
        f"problem {problem.name!r}",
    )


def of_markov(fn: Callable[..., Any], vocab: int, length: int, dtype: torch.dtype, seed: int) -> Blocks:
    """The function at size: first-order tables, by turns flat and full, and peaked with a quarter of zeros."""
    tape = GeneratorTape(seed)
    rows = vocab + 1
    target = tape.race("target", (rows, vocab)) ** 2 * (tape.uniform("zero", (rows, vocab)) < 0.75)
    target[::2] = 0.5 + tape.uniform("flat", target[::2].shape)
    drafter = target * torch.exp(tape.normal("tilt", (rows, vocab)) * 0.7) + 0.02 * tape.race("floor", (rows, vocab))
    target, drafter = ((t / t.sum(-1, keepdim=True)).to(dtype).double() for t in (target, drafter))
    target, drafter = (t / t.sum(-1, keepdim=True) for t in (target, drafter))

    def last(prefix: tuple[int, ...]) -> int:
        return prefix[-1] if prefix else vocab

    def call(block: tuple[int, ...]) -> Any:
        contexts = [vocab, *block]
        return fn(torch.tensor(block), drafter[contexts[:-1]].to(dtype), target[contexts].to(dtype))

    name = f"the larger problem (V = {vocab}, draft length {length})"
    return Blocks(lambda s: target[last(s)], lambda s: drafter[last(s)], vocab, length, call, name)


@dataclass(frozen=True)
class Judgement:
    """What samples said: the confirmed departure if any, the bounds on the bias, how many runs."""

    departure: Departure | None
    lower: float
    n: int
    acceptance: float
    smallest: float


def judge_samples(blocks: Any, n: int, seed: int, confirm: bool = True, pairs: Any = None) -> Judgement:
    """Screen every feature at 1e-3, look again at those that fail on four times as many fresh runs, at 1e-7.

    A token of target probability zero needs no second look; without ``confirm`` nothing gets one, and 1e-7 is asked at
    once. False alarms: below 1e-7 (Bonferroni over the features
    screened, on fresh samples). Smallest bias seen nine times in ten by one feature: ``smallest``.
    """
    pairs = blocks.sample(n, seed) if pairs is None else pairs
    emitted = [tokens for _, tokens in pairs]
    first = blocks.departures(emitted)
    agreement = sum(block[:1] == tokens[:1] for block, tokens in pairs) / n
    smallest = (math.sqrt(math.log(2 * len(first) / SCREEN) / 2) + 0.64) / math.sqrt(n)
    if first and first[0].impossible:
        return Judgement(first[0], first[0].bias_lower(ALPHA), n, agreement, smallest)
    suspects = [item for item in first if item.p_value * len(first) <= SCREEN]
    if suspects and not confirm:
        worst = min(suspects, key=lambda item: item.p_value)
        return Judgement(worst if worst.p_value * len(first) <= ALPHA else None, 0.0, n, agreement, smallest)
    if suspects:
        fresh = blocks.departures([tokens for _, tokens in blocks.sample(4 * n, seed + 7919)])
        named = {(item.position, item.group) for item in suspects}
        again = [item for item in fresh if (item.position, item.group) in named or item.impossible]
        worst = min(again, key=lambda item: item.p_value, default=None)
        if worst is not None and worst.p_value * len(again) <= ALPHA:
            lower = max(item.bias_lower(ALPHA / len(again)) for item in again)
            return Judgement(worst, lower, 5 * n, agreement, smallest)
    return Judgement(None, 0.0, n, agreement, smallest)


def large_blocks(
    fn: Callable[..., Any], laws: Sequence[ProblemLaw], *, seed: int, dtype: torch.dtype, budget: str, confirm: bool
) -> tuple[Judgement, str]:
    """The sampled problem at size; and on a small one, whether the real draws obey the law enumerated."""
    blocks = of_markov(fn, VOCAB, LENGTH, dtype, seed + 11)
    judgement = judge_samples(blocks, DRAWS[budget], seed + 17, confirm)
    known = [item for item in laws if item.slack < 1e-9]  # a law known only in part says nothing about the rest
    for case in (
        {id(item): item for item in (known[0], max(known, key=lambda item: item.bias))}.values() if known else ()
    ):
        unreal = _reality(fn, case, DRAWS[budget] // 4, seed + 23)
        if unreal:
            return judgement, unreal
    return judgement, ""


def _reality(fn: Callable[..., Any], case: ProblemLaw, n: int, seed: int) -> str:
    """Empty if the function's own draws obey the enumerated law of emitted blocks; else what differs.

    Exact binomial tails of every block, Bonferroni; twice, on fresh samples; false alarms below 1e-9.
    """
    from scipy.stats import binomtest

    blocks = of_problem(fn, case.problem)
    worst = ""
    for attempt in range(2):
        counts = Counter(tokens for _, tokens in blocks.sample(n, seed + attempt))
        every = set(counts) | set(case.emitted)
        least, block = min(
            (binomtest(counts[tokens], n, min(1.0, case.emitted.get(tokens, 0.0))).pvalue, tokens) for tokens in every
        )
        if least * len(every) > 3e-5:
            return ""
        worst = (
            f"block {list(block)}: {counts[block]} of {n} runs against probability {case.emitted.get(block, 0.0):.4g}"
        )
    return worst


def merge(verdict: Verdict, large: tuple[Judgement, str]) -> Verdict:
    """The exact verdict, unless samples of the unmodified function contradict it."""
    judgement, unreal = large
    if unreal:
        note = f"run on its own draws the function does not follow the law that was enumerated ({unreal})"
        return replace(
            verdict, status="inconclusive", evidence="sampled", confidence=1 - ALPHA, bias_lower=0.0, bias_upper=1.0,
            counterexample=None, notes=(*verdict.notes, note), needs="find what the function keeps between calls",
        )  # fmt: skip
    if judgement.departure is None or verdict.status == "lossy":
        note = f"{judgement.n} runs at V = {VOCAB}, draft length {LENGTH}: "
        note += (
            "also wrong there" if judgement.departure else f"nothing seen, down to a bias of {judgement.smallest:.2g}"
        )
        return replace(verdict, notes=(*verdict.notes, note))
    note = f"exact on every small problem (bias {verdict.bias_upper:.2g}), wrong at size"
    case = Counterexample(
        judgement.lower,
        "from verify.spaces.sampled import judge_samples, of_markov\nimport torch\n"
        f"print(judge_samples(of_markov(fn, {VOCAB}, {LENGTH}, torch.float64, 11), {DRAWS['quick']}, 17))",
        f"only at V = {VOCAB}, draft length {LENGTH}: {judgement.departure}",
        {"vocab": VOCAB, "draft_length": LENGTH},
    )
    return replace(
        verdict, status="lossy", evidence="sampled", confidence=1 - ALPHA, bias_lower=judgement.lower, bias_upper=1.0,
        counterexample=case, notes=(*verdict.notes, note),
    )  # fmt: skip


def tighten(verdict: Verdict, other: Verdict) -> Verdict:
    """An undecided enumeration with what samples of the same problems add: a bias, or a smaller bound."""
    if other.status == "lossy":
        return replace(other, notes=(*verdict.notes, *other.notes))
    upper = min(verdict.bias_upper, other.bias_upper)
    confidence = verdict.confidence if upper == verdict.bias_upper else other.confidence
    return replace(verdict, bias_upper=upper, confidence=confidence, notes=(*verdict.notes, *other.notes))


def judge_blocks(
    fn: Callable[..., Any], problems: Sequence[Problem], reason: str, *, budget: str, seed: int
) -> Verdict:
    """The verdict where enumeration was impossible for ``reason``: lossy if samples show it, else inconclusive."""
    n = DRAWS[budget] // 4
    notes = (f"the draws could not be enumerated ({reason}); this verdict rests on samples",)
    judged = []
    upper = 0.0
    for place, problem in enumerate(problems):
        blocks = of_problem(fn, problem)
        pairs = blocks.sample(n, seed + 1000 * place)
        judgement = judge_samples(blocks, n, seed + 1000 * place, pairs=pairs)
        judged.append((judgement, problem))
        upper = max(upper, _bound(pairs, problem))
        if judgement.departure is not None and budget == "quick":
            break
    large = judge_samples(of_markov(fn, VOCAB, LENGTH, torch.float64, seed + 11), n, seed + 17)
    common: dict[str, Any] = dict(
        metric="tv", evidence="sampled", confidence=1 - ALPHA * (len(problems) + 1), notes=notes,
        acceptance=sum(item.acceptance for item, _ in judged) / len(judged),
        overlap=sum(problem.overlap for _, problem in judged) / len(judged),
    )  # fmt: skip
    wrong = [(item, problem) for item, problem in judged if item.departure is not None]
    if wrong or large.departure is not None:
        item = max([judged for judged, _ in wrong] or [large], key=lambda one: one.lower)
        found = next((problem for one, problem in wrong if one is item), None)
        recipe = found.pasted if found else f"# V = {VOCAB}, draft length {LENGTH}"
        sizes = (found.vocab, found.length) if found else (VOCAB, LENGTH)
        case = Counterexample(
            item.lower,
            recipe,
            str(item.departure),
            dict(zip(("vocab", "draft_length"), sizes, strict=True)),
        )
        return Verdict("lossy", max(item.lower, large.lower), 1.0, counterexample=case, **common)
    needed = math.ceil(math.log(1 / ALPHA) / (2 * 0.001**2))
    needs = (
        "draw through torch, numpy or random inside the call, so that the draws can be enumerated; by samples, a bias "
        f"of 0.001 takes about {needed:,} runs a problem"
    )
    return Verdict("inconclusive", 0.0, min(1.0, upper), needs=needs, **common)


def _bound(pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], problem: Problem) -> float:
    """An upper bound on the bias: the completed empirical law's, plus McDiarmid's sqrt(ln(1/delta) / 2n)."""
    n = len(pairs)
    law = problem.complete({tokens: count / n for tokens, count in Counter(tokens for _, tokens in pairs).items()})
    return float((law - problem.truth).abs().sum() / 2) + math.sqrt(math.log(1 / ALPHA) / (2 * n))
