"""Which known rule does a wrong law belong to?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import torch
from scipy.optimize import brentq
from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import EnumerationTape, enumerate_tape
from verify.problems import Problem
from verify.records import Draft
from verify.verifier import Verifier, catalog

if TYPE_CHECKING:
    from verify.spaces.discrete import ProblemLaw

LEAST = 1e-3  # numbers of a rule are looked for from here to 1
SAME = 1e-9  # laws nearer than this, on every problem compared, are one law


def law_of_verifier(verifier: Verifier, problem: Problem) -> Tensor:
    """The exact law (V**(gamma+1),) of a catalogue verifier on a problem, completed by the target (lemma L5)."""
    blocks = list(problem.drafts())
    tokens = torch.tensor([block for block, _ in blocks])
    draft, target = (torch.stack(rows) for rows in zip(*(problem.rows(block) for block, _ in blocks), strict=True))

    def run(index: Tensor, tape: EnumerationTape) -> tuple[Tensor, Tensor]:
        drafted = Draft.chain(tokens[index], Categorical(draft[index]))
        outcome = verifier.verify(drafted, Categorical(target[index]), tape)
        return outcome.value, outcome.length

    emitted: dict[tuple[int, ...], float] = {}
    for index, masses, _, (values, lengths) in enumerate_tape(run, len(blocks)):
        for row, mass, value, length in zip(
            index.tolist(), masses.tolist(), values.tolist(), lengths.tolist(), strict=True
        ):
            key = tuple(value[:length])
            emitted[key] = emitted.get(key, 0.0) + blocks[row][1] * mass
    return problem.complete(emitted)


def diagnose(wrong: Sequence[ProblemLaw]) -> str:
    """The rule of the catalogue, or the planted defect, that has these very laws; empty where none has.

    A rule with one free number is fitted to the first problem and must then agree on all the others.
    """
    cases = sorted(wrong, key=lambda case: -case.bias)[:4]
    for folder in ("saboteurs", "verifiers"):
        for name, kind in catalog(folder).items():
            if kind.claim.laws not in ("any", "categorical"):
                continue
            rule = _fitted(kind, cases[0])
            if rule is not None and all(_distance(rule, case) < SAME for case in cases):
                number = ", ".join(f"{f.name} = {getattr(rule, f.name):.6g}" for f in fields(rule))
                told = f" ({number})" if number else ""
                return f"behaves exactly like {name}{told}, {kind.claim.reference}"
    return ""


def _distance(rule: Verifier, case: ProblemLaw) -> float:
    return float((law_of_verifier(rule, case.problem) - case.law).abs().sum() / 2)


def _fitted(kind: type[Any], case: ProblemLaw) -> Any:
    """The rule as it stands, or with its one number in (0, 1] fitted; None where there are more numbers to it."""
    free = fields(kind)
    if not free:
        return kind()
    if len(free) > 1 or free[0].type not in ("float", float):
        return None
    name = free[0].name
    away = (case.law - case.problem.truth).sign()

    def beyond(value: float) -> float:
        """By how much the rule with this number goes further in the direction of the bias than the law found."""
        law = law_of_verifier(replace(kind(), **{name: value}), case.problem)
        return float(((law - case.law) * away).sum())

    if beyond(LEAST) * beyond(1.0) > 0:
        return None
    return replace(kind(), **{name: brentq(beyond, LEAST, 1.0, xtol=1e-15)})
