"""Audits of samplers as other projects ship them: imported as installed, called unmodified."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from verify.foreign.interpose import Room
from verify.judge import check_verifier
from verify.problems import Problem, pool
from verify.records import Verdict
from verify.spaces.discrete import EXACT, ProblemLaw, counterexample, law_of

WEIGHTS = (0.5, 0.9, 0.99)
PARAMETERS = ("candidate_input_ids", "candidate_logits", "candidate_length", "new_logits")


def speculative_sampling() -> Callable[..., Any]:
    """transformers' own function, as installed.

    Raises ImportError if transformers is not installed, or its function is not the one this adapter knows.
    """
    from transformers.generation import utils

    function: Callable[..., Any] | None = getattr(utils, "_speculative_sampling", None)
    if function is None or tuple(inspect.signature(function).parameters)[:4] != PARAMETERS:
        raise ImportError(
            "this transformers has no _speculative_sampling with the parameters known here; try another release"
        )
    return function


def adapted(**options: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """transformers' function in the form that ``check_verifier`` takes: probabilities become logits, and one row."""
    function = speculative_sampling()

    def transformers_speculative_sampling(draft_tokens: Tensor, draft_probs: Tensor, target_probs: Tensor) -> Tensor:
        tokens, _ = function(
            draft_tokens[None], draft_probs.log()[None], len(draft_tokens), target_probs.log()[None], **options
        )
        emitted: Tensor = tokens[0]
        return emitted

    return transformers_speculative_sampling


@dataclass(frozen=True, eq=False)
class GreedyProblem(Problem):
    """The drafter drafts its most probable tokens, and the verifier is told the dense law all the same."""

    def drafts(self) -> Iterator[tuple[tuple[int, ...], float]]:
        block: tuple[int, ...] = ()
        for depth in range(self.length):
            block = (*block, int(self.draft[depth][self.index(block)].argmax()))
        yield block, 1.0


def audit_transformers(*, budget: str = "quick", seed: int = 0) -> list[Verdict]:
    """The default; ``assistant_ensemble_weight`` 0.5, 0.9, 0.99; and greedy drafts told to be sampled (huggingface
    issue #32867). Raises ImportError where transformers is missing.

    The ensemble's bias has the closed form (1 - w) TV(p, q) per token: accepting with min(1, 1 - w + w p/q) and drawing
    the residual (p - q)+ emits exactly w p + (1 - w) q. It is compared with the enumerated bias on every problem of one
    drafted token.
    """
    release = importlib.metadata.version("transformers")
    name = f"transformers {release} _speculative_sampling"
    verdicts = [replace(check_verifier(adapted(), budget=budget, seed=seed), subject=name, expected="lossless")]
    for weight in WEIGHTS:
        subject = adapted(assistant_ensemble_weight=weight)
        verdict = _runnable(check_verifier(subject, budget=budget, seed=seed), f"assistant_ensemble_weight={weight:g}")
        gap = ensemble_gap(subject, weight, seed)
        agrees = "agrees" if gap < EXACT else "DISAGREES"
        note = f"the bias {agrees} with (1 - w) TV(p, q) to {gap:.1e} on every problem of one drafted token"
        diagnosis = f"a declared mixture, {weight:g} target + {1 - weight:g} drafter (DIVERSE, arXiv 2604.07622)"
        verdicts.append(
            replace(
                verdict, subject=f"{name}, assistant_ensemble_weight={weight:g}", expected="lossy",
                diagnosis=diagnosis, notes=(*verdict.notes, note),
            )
        )  # fmt: skip
    verdicts.append(_greedy(f"{name}, greedy drafts with dense probabilities", seed))
    return verdicts


def _runnable(verdict: Verdict, options: str) -> Verdict:
    """The verdict with a snippet that builds the function it speaks of."""
    case = verdict.counterexample
    if case is None:
        return verdict
    head = f"from verify.upstream.transformers import adapted\nfn = adapted({options})\n"
    return replace(verdict, counterexample=replace(case, snippet=head + case.snippet))


def ensemble_gap(subject: Callable[..., Any], weight: float, seed: int = 0) -> float:
    """The largest difference between the enumerated bias and (1 - w) TV(p, q), over problems of one drafted token."""
    gaps = []
    with Room(subject) as room:
        for problem in pool(3, 1, seed) + pool(2, 1, seed):
            gaps.append(abs(law_of(subject, problem, room).bias - (1 - weight) * (1 - problem.overlap)))
    if room.escapes:
        raise RuntimeError(room.escapes[0])
    return max(gaps)


def _greedy(name: str, seed: int) -> Verdict:
    """The misuse of huggingface issue #32867: the drafts are argmax, the ratio and the residual use the dense law."""
    subject = adapted()
    laws: list[ProblemLaw] = []
    with Room(subject) as room:
        for problem in pool(3, 2, seed) + pool(2, 1, seed):
            laws.append(law_of(subject, GreedyProblem(problem.draft, problem.target, problem.name), room))
    worst = max(laws, key=lambda item: item.bias)
    small = min((item for item in laws if item.bias > 1e-3), key=lambda item: (item.problem.vocab, -item.bias))
    case = counterexample(small)
    case = replace(
        case,
        snippet=case.snippet.replace(
            "from verify.problems import Problem",
            "from verify.upstream.transformers import GreedyProblem as Problem",
        ),
    )
    verdict = Verdict(
        "lossy" if worst.bias > EXACT else "lossless", worst.bias, worst.bias, "tv", "exact", 1.0,
        acceptance=sum(item.agreement for item in laws) / len(laws),
        counterexample=case, subject=name, expected="lossy",
        diagnosis="drafts not drawn from the law they are verified with (huggingface/transformers #32867, then #33534)",
        scope=f"vocabulary x draft length 3 x 2, 2 x 1: {len(laws)} problems, tables in float64",
        notes=("a misuse of the function, not a defect of it: accept with p(x) instead when the draft is not sampled",),
    )  # fmt: skip
    return _runnable(verdict, "")
