"""Judges a function that verifies one drafted block over a finite vocabulary."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from verify.diagnosis.departure import departure
from verify.errors import SubjectError, name_of
from verify.foreign.attempt import attempt
from verify.foreign.interpose import Room
from verify.foreign.leaf import NotUnderstood
from verify.problems import Problem, pool, wide
from verify.progress import track
from verify.records import Counterexample, Verdict
from verify.spaces import sampled
from verify.spaces.problem_law import EXACT, SINGLE, ProblemLaw, law_of, tokens_of, tolerance

__all__ = ["EXACT", "ProblemLaw", "counterexample", "judge_discrete", "law_of", "tokens_of", "tolerance"]

WIDE = 60  # more than the 50 of a default top-k
LOOSE = 1e-3  # an error bar above this decides nothing
SAMPLED = {"quick": 6, "thorough": 17}  # problems looked at where only samples can tell
LEAVES = {"quick": 2_000, "thorough": 50_000}
LEAST = 1.5  # seconds of processor time that every problem gets, whatever the ones before it took
SECONDS = {"quick": 30.0, "thorough": 300.0}


def judge_discrete(
    fn: Callable[..., Any], *, vocab: int = 3, draft_length: int = 2, budget: str = "quick", seed: int = 0
) -> Verdict:
    """The verdict on ``fn(draft_tokens, draft_probs, target_probs) -> emitted ids``.

    Exact laws on the pool of problems; one larger sampled problem; if a law is wrong, a search for the smallest problem
    that shows it. Where the draws cannot be enumerated the verdict rests on samples, and says why.
    """
    started = time.monotonic()
    problems = _problems(vocab, draft_length, budget, seed)
    dtype = torch.float64
    try:
        try:
            laws, room = attempt(fn, lambda room: _laws(room, fn, problems, budget))
        except SubjectError as error:
            if "dtype" not in str(error) and "expected scalar type" not in str(error):
                raise
            dtype = torch.float32  # the function mixes its arguments with float32 tensors of its own
            problems = [problem.to(dtype) for problem in problems]
            laws, room = attempt(fn, lambda room: _laws(room, fn, problems, budget))
    except NotUnderstood as reason:
        verdict = sampled.judge_blocks(fn, problems[: SAMPLED[budget]], str(reason), budget=budget, seed=seed)
        scope = f"vocabulary x draft length {vocab} x {draft_length}, {sampled.VOCAB} x {sampled.LENGTH}, sampled"
        return replace(verdict, subject=name_of(fn), scope=scope, seconds=time.monotonic() - started)
    sizes = dict.fromkeys(f"{law.problem.vocab} x {law.problem.length}" for law in laws)
    scope = f"vocabulary x draft length {', '.join(sizes)}: {len(laws)} problems, tables in "
    scope += f"{str(dtype).removeprefix('torch.')}; {sampled.VOCAB} x {sampled.LENGTH} sampled"
    verdict = _exact_verdict(fn, laws, room.precisions | {dtype}, seed, budget)
    if verdict.status == "inconclusive":
        cut = "a loop without end was cut off"
        other = sampled.judge_blocks(fn, problems[: SAMPLED[budget]], cut, budget=budget, seed=seed)
        verdict = sampled.tighten(verdict, other)
    else:
        large = sampled.large_blocks(fn, laws, seed=seed, dtype=dtype, budget=budget, confirm=verdict.status != "lossy")
        verdict = sampled.merge(verdict, large)
    return replace(verdict, subject=name_of(fn), scope=scope, seconds=time.monotonic() - started)


def _problems(vocab: int, draft_length: int, budget: str, seed: int) -> list[Problem]:
    """The pool at the size asked for and at the smallest; a few of a longer draft, a long one, and a wide one."""
    problems = pool(vocab, draft_length, seed, copies=1 if budget == "quick" else 4)
    known = {(vocab, draft_length)}
    for size, count in (((2, 1), 99), ((vocab, 3), 3), ((2, 4), 4), ((2, 6), 1 if budget == "thorough" else 0)):
        if size not in known:
            known.add(size)
            problems += pool(*size, seed + 1)[:count]
    return [*problems, wide(WIDE, seed)]


def _laws(room: Room, fn: Callable[..., Any], problems: list[Problem], budget: str) -> list[ProblemLaw]:
    """The law on each problem, as far as the time goes."""
    needed = {(problems[0].vocab, problems[0].length), (2, 1)}
    began = room.now()
    share = [began + SECONDS[budget] * (i + 1) / len(problems) for i in range(len(problems))]
    laws: list[ProblemLaw] = []
    for i, problem in enumerate(track(problems, label="enumerating")):
        if problem.recipe and any(law.bias > LOOSE + law.slack for law in laws):
            continue  # the wide problem is for what the small ones do not show
        until = max(share[i], room.now() + LEAST)
        law = law_of(fn, problem, room, deadline=until, leaves=LEAVES[budget])
        if problem.recipe and law.slack > EXACT:
            # Every position drawn at once, say: a vocabulary of 20 is still more than the others have.
            smaller = wide(20).to(problem.dtype)
            law = law_of(fn, smaller, room, deadline=until + LEAST, leaves=LEAVES[budget])
            if law.slack > EXACT:
                continue
        extra = (problem.vocab, problem.length) not in needed
        if extra and law.slack > EXACT and law.bias <= LOOSE + law.slack:
            continue  # a size beyond the one asked for that takes too long; the scope does not name it
        laws.append(law)
        if sum(item.slack > LOOSE for item in laws) > 2:
            break  # a loop without end: more problems would not be enumerated either
    return laws


def _exact_verdict(
    fn: Callable[..., Any], laws: list[ProblemLaw], precisions: set[torch.dtype], seed: int, budget: str
) -> Verdict:
    slack = max(item.slack for item in laws)
    allowed = tolerance(precisions)
    exact = slack <= EXACT
    clear = [item for item in laws if item.bias > allowed + item.slack]
    notes = _notes(laws, precisions, slack, exact)
    common: dict[str, Any] = dict(
        metric="tv",
        evidence="exact" if exact else "enumeration",
        confidence=1.0,
        acceptance=float(np.mean([item.agreement for item in laws])),
        overlap=float(np.mean([item.problem.overlap for item in laws])),
        notes=notes,
    )
    if clear:
        # Among the laws enumerated in full if any of them is wrong: then the bias is exact.
        sure = [item for item in clear if item.slack <= EXACT]
        worst = max(sure or clear, key=lambda item: item.bias - item.slack)
        common["evidence"] = "exact" if sure else "enumeration"
        lower, upper = (worst.bias,) * 2 if sure else (worst.bias - worst.slack, min(1.0, worst.bias + worst.slack))
        from verify.diagnosis.nearest import diagnose  # only a wrong law pays for loading these
        from verify.search import smallest

        case = smallest(fn, clear, allowed, seed=seed, budget=budget)
        if sure and case.slack <= EXACT and case.bias > lower:
            lower = upper = case.bias  # the search may meet a worse problem than the pool has
        failed = max((item.raised for item in laws if item.raised), key=lambda item: item[0], default=None)
        if failed is not None:
            common["notes"] += (f"with probability {failed[0]:.1e} of a block {failed[1]}",)
        diagnosis = diagnose([item for item in laws if item.slack <= EXACT], allowed) if sure else ""
        return Verdict("lossy", lower, upper, counterexample=counterexample(case, laws), diagnosis=diagnosis, **common)
    failed = max((item.raised for item in laws if item.raised), key=lambda item: item[0], default=None)
    if failed is not None:
        raise failed[1]
    bias = max(item.bias for item in laws)
    if exact:
        return Verdict("lossless", bias, bias, **common)
    upper = max(min(1.0, item.bias + item.slack) for item in laws)
    needs = f"enumeration left out mass {slack:.2g}; raise the budget, or bound the function's loop"
    status = "lossless" if upper <= LOOSE else "inconclusive"
    return Verdict(status, 0.0, upper, needs="" if status == "lossless" else needs, **common)


def _notes(laws: list[ProblemLaw], precisions: set[torch.dtype], slack: float, exact: bool) -> tuple[str, ...]:
    notes = ["uniforms of float32 and float64 count as continuous"]
    half = sorted(str(d).removeprefix("torch.") for d in precisions & {torch.bfloat16, torch.float16})
    if half:
        notes.append(f"the function computes in {', '.join(half)}; its uniforms were enumerated on that grid")
    if torch.float32 in precisions:
        notes.append(f"the function computes in float32: a bias up to {SINGLE:g} counts as its rounding")
    if exact and slack > 0:
        notes.append(f"branches of total mass {slack:.1e} exist only by rounding; the bias is exact to that")
    elif slack > 0:
        cut = sum(item.slack > EXACT for item in laws)
        notes.append(f"mass up to {slack:.2g} was not followed, on {cut} of {len(laws)} problems; it is in the bounds")
    return tuple(notes)


def counterexample(case: ProblemLaw, laws: Sequence[ProblemLaw] = ()) -> Counterexample:
    """The records' form of a wrong law, with the first departure in words; ``laws`` as ``departure`` has them."""
    problem, departed = case.problem, departure(case, laws)
    snippet = (
        f"from verify.spaces.discrete import law_of\n{problem.pasted}\n"
        f"print(law_of(fn, problem).bias)  # {case.bias:.6g}"
    )
    sizes = {"vocab": problem.vocab, "draft_length": problem.length}
    if departed is None:
        return Counterexample(case.bias, snippet, "", sizes)
    return Counterexample(case.bias, snippet, str(departed), sizes, *departed.masses())
