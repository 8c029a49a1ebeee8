"""Judges a function that verifies one drafted block over a finite vocabulary."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verify.errors import SubjectError, name_of, raised
from verify.foreign.interpose import Room
from verify.foreign.leaf import NotUnderstood
from verify.foreign.runs import exact_runs
from verify.foreign.symbols import Symbol
from verify.problems import Problem, pool, wide
from verify.progress import track
from verify.records import Counterexample, Verdict
from verify.spaces import sampled

RARE = 1e-2  # a function that raises more often than this has no law to speak of
WIDE = 60  # more than the 50 of a default top-k
LOOSE = 1e-3  # an error bar above this decides nothing
EXACT = 1e-12  # the largest bias that float64 rounding explains
SINGLE = 2e-6  # and float32, when the function computes in it
SAMPLED = {"quick": 6, "thorough": 17}  # problems looked at where only samples can tell
LEAVES = {"quick": 2_000, "thorough": 50_000}
LEAST = 2.5  # seconds of processor time that every problem gets, whatever the ones before it took
SECONDS = {"quick": 30.0, "thorough": 300.0}


def tokens_of(result: Any, vocab: int, most: int) -> tuple[int, ...]:
    """The emitted ids in whatever the function returned. Raises SubjectError unless these are 1..most ids < vocab."""
    if result is None:
        raise SubjectError("the function returned None; return the emitted token ids, 1 to draft_length + 1 of them")
    if isinstance(result, Tensor):
        result = result.tolist()
    elif isinstance(result, np.ndarray):
        result = result.tolist()
    if isinstance(result, (int, np.integer)) and not isinstance(result, bool):
        result = [result]
    try:
        items = [item.tolist() if isinstance(item, (Tensor, np.ndarray)) else item for item in result]
    except TypeError:
        raise SubjectError(f"the function returned a {type(result).__name__}; return a sequence of token ids") from None
    flat: list[Any] = []
    for item in items:
        flat += item if isinstance(item, (list, tuple)) else [item]
    for item in flat:
        if isinstance(item, Symbol):
            raise SubjectError("the function returned a random number in place of a token id; return ids")
        if isinstance(item, float) and item.is_integer():
            continue  # np.append([], id) is an array of floats
        if isinstance(item, bool) or not isinstance(item, (int, np.integer)):
            raise SubjectError(f"the function returned {item!r} in place of a token id; return whole numbers")
    for item in flat:
        if not 0 <= item < vocab:
            raise SubjectError(f"the function returned id {item}, outside 0..{vocab - 1}; return ids of the vocabulary")
    if not 1 <= len(flat) <= most:
        raise SubjectError(f"the function returned {len(flat)} tokens; return 1 to draft_length + 1 = {most}")
    return tuple(int(item) for item in flat)


@dataclass(frozen=True, eq=False)
class ProblemLaw:
    """The exact law of a function on one problem: of its emitted blocks, and completed to gamma + 1 tokens.

    ``slack``: mass not enumerated, branches that exist by rounding and quadrature errors; the bias is exact to it.
    """

    problem: Problem
    emitted: Mapping[tuple[int, ...], float]
    law: Tensor
    slack: float
    agreement: float
    leaves: int
    raised: tuple[float, SubjectError] | None = None

    @property
    def bias(self) -> float:
        """Total variation from the target's law of gamma + 1 tokens."""
        return float((self.law - self.problem.truth).abs().sum() / 2)

    def conditionals(self) -> list[tuple[tuple[int, ...], float, Tensor, Tensor]]:
        """(prefix, probability of reaching it, law of the next emitted token, the target's) by lemma L5."""
        vocab, found = self.problem.vocab, []
        prefixes = sorted(
            {tokens[:i] for tokens in self.emitted for i in range(len(tokens))}, key=lambda t: (len(t), t)
        )
        for prefix in prefixes:
            here = torch.zeros(vocab, dtype=torch.float64)
            for tokens, mass in self.emitted.items():
                if len(tokens) > len(prefix) and tokens[: len(prefix)] == prefix:
                    here[tokens[len(prefix)]] += mass
            reach = float(here.sum())
            if reach > 0:
                wanted = self.problem.target[len(prefix)][self.problem.index(prefix)]
                found.append((prefix, reach, here / reach, wanted))
        return found

    def departure(self) -> tuple[tuple[int, ...], Tensor, Tensor] | None:
        """The first position where the law departs, at its worst context: (prefix, found, wanted)."""
        worst: tuple[float, tuple[int, ...], Tensor, Tensor] | None = None
        for prefix, reach, found, wanted in self.conditionals():
            size = reach * float((found - wanted).abs().sum() / 2)
            if worst is not None and len(prefix) > len(worst[1]):
                break
            if size > max(self.slack, 1e-9 * reach) and (worst is None or size > worst[0]):
                worst = (size, prefix, found, wanted)
        return None if worst is None else worst[1:]


def law_of(
    fn: Callable[..., Any],
    problem: Problem,
    room: Room | None = None,
    *,
    deadline: float = float("inf"),
    leaves: int = 50_000,
) -> ProblemLaw:
    """The exact law of ``fn`` on a problem, over every drafted block.

    Raises SubjectError if the function raises, or returns what is no block of tokens, with more than negligible
    probability; NotUnderstood if its draws cannot be enumerated.
    """
    if room is None:
        with Room(fn) as opened:
            result = law_of(fn, problem, opened, deadline=deadline, leaves=leaves)
        if opened.escapes:
            raise NotUnderstood(opened.escapes[0])
        return result
    emitted: dict[tuple[int, ...], float] = {}
    slack = agreement = 0.0
    count = 0
    failed: tuple[float, SubjectError] | None = None
    for block, chance in problem.drafts():
        call = problem.call(fn, block)
        runs = exact_runs(
            lambda call=call: tokens_of(call(), problem.vocab, problem.length + 1),  # type: ignore[misc]
            room,
            deadline=deadline,
            max_leaves=leaves,
            rerun=1 if problem.vocab**problem.length <= 9 else 8,  # every leaf twice where that is cheap
        )
        crashed = sum(share for share, _ in runs.raised)
        if crashed > tolerance(room.precisions):
            error = max(runs.raised, key=lambda item: item[0])[1]
            sentence = raised(error, f"problem {problem.name!r} (vocab {problem.vocab}, draft {list(block)})")
            if crashed > RARE:
                raise sentence from error
            failed = max(failed or (0.0, sentence), (crashed, sentence), key=lambda item: item[0])
        slack += chance * (runs.dropped + runs.error + crashed)
        count += runs.leaves
        for tokens, mass in runs.law.items():
            emitted[tokens] = emitted.get(tokens, 0.0) + chance * mass
            agreement += chance * mass * (tokens[0] == block[0])
    return ProblemLaw(problem, emitted, problem.complete(emitted), slack, agreement, count, failed)


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
            laws, room = _laws(fn, problems, budget)
        except SubjectError as error:
            if "dtype" not in str(error) and "expected scalar type" not in str(error):
                raise
            dtype = torch.float32  # the function mixes its arguments with float32 tensors of its own
            problems = [problem.to(dtype) for problem in problems]
            laws, room = _laws(fn, problems, budget)
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


def _laws(
    fn: Callable[..., Any], problems: list[Problem], budget: str
) -> tuple[list[ProblemLaw], Room]:
    """The law on each problem, in one room; once more with a lazy ``float`` if the function needs a number."""
    needed = {(problems[0].vocab, problems[0].length), (2, 1)}
    for shim in (False, True):
        try:
            with Room(fn, shim_float=shim) as room:
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
                    if i == 2 and sum(item.slack > LOOSE for item in laws) > 1:
                        break  # a loop without end: more problems would not be enumerated either
            if room.escapes:
                raise NotUnderstood("; ".join(dict.fromkeys(room.escapes)))
            return laws, room
        except NotUnderstood as reason:
            if shim or "plain float" not in str(reason):
                raise
    raise AssertionError("unreachable")


def tolerance(precisions: set[torch.dtype]) -> float:
    """The bias that the rounding of the widest type used throughout would explain."""
    return SINGLE if torch.float32 in precisions else EXACT


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
        from verify.diagnosis import diagnose  # only a wrong law pays for loading these
        from verify.search import smallest

        case = smallest(fn, clear, allowed, seed=seed, budget=budget)
        if sure and case.slack <= EXACT and case.bias > lower:
            lower = upper = case.bias  # the search may meet a worse problem than the pool has
        failed = max((item.raised for item in laws if item.raised), key=lambda item: item[0], default=None)
        if failed is not None:
            common["notes"] += (f"with probability {failed[0]:.1e} of a block {failed[1]}",)
        diagnosis = diagnose(sure) if sure else ""
        return Verdict("lossy", lower, upper, counterexample=counterexample(case), diagnosis=diagnosis, **common)
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


def counterexample(case: ProblemLaw) -> Counterexample:
    """The records' form of a wrong law, with the first departure in words."""
    problem, where, found, wanted = case.problem, "", {}, {}
    departed = case.departure()
    if departed is not None:
        prefix, law, truth = departed
        context = f"after {list(prefix)}" if prefix else "at the start"
        worst = sorted((law - truth).abs().topk(min(8, len(law))).indices.tolist())
        which = "" if len(worst) == len(law) else f" of tokens {worst}"
        where = f"the law{which} at position {len(prefix) + 1} {context} is {_rounded(law[worst])}, "
        where += f"the target's {_rounded(truth[worst])}"
        found = {str(token): float(law[token]) for token in worst}
        wanted = {str(token): float(truth[token]) for token in worst}
    snippet = (
        "from verify.problems import Problem, wide\nfrom verify.spaces.discrete import law_of\n"
        f"problem = {problem.snippet()}\nprint(law_of(fn, problem).bias)  # {case.bias:.6g}"
    )
    sizes = {"vocab": problem.vocab, "draft_length": problem.length}
    return Counterexample(case.bias, snippet, where, sizes, found, wanted)


def _rounded(law: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in law]
