"""The candidates of a diagnosis: planted defects and lossy rules, laid beside the law of a function under test."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from scipy.optimize import brentq
from torch import Tensor

from distributions.enumeration import EnumerationExploded, NotEnumerable, RowsDependent
from verify.audit import finite
from verify.jacobi import Jacobi
from verify.verifier import Verifier, catalog

LEAST, MOST = 1e-3, 1 - 1e-9  # numbers of a rule are looked for between these
COARSE, REFITS = 1e-2, 4


@dataclass(frozen=True, eq=False)
class Case:
    """Problems on which laws are laid side by side in one go: the laws ``found``, those ``wanted``, and the laws ``of``
    any rule, a row (P, N) for each problem.
    """

    found: Tensor
    wanted: Tensor
    of: Callable[[Verifier], Tensor]

    @cached_property
    def biases(self) -> Tensor:
        """The total variation (P,) between what was found and what was wanted."""
        return (self.found - self.wanted).abs().sum(-1) / 2

    def distances(self, rule: Verifier) -> Tensor:
        """The total variation (P,) between a rule's laws and those found."""
        return (self.of(rule) - self.found).abs().sum(-1) / 2

    def agrees(self, rule: Verifier, same: float) -> bool:
        return bool((self.distances(rule) < same).all())


@dataclass(frozen=True)
class Candidate:
    """A rule by its name; ``fitted``: the number that was fitted, if one was."""

    name: str
    rule: Any
    fitted: str = ""

    def __str__(self) -> str:
        numbers = {field.name: getattr(self.rule, field.name) for field in fields(self.rule)}
        shown = [f"{name} = {f'{value:.6g}' if isinstance(value, float) else value}" for name, value in numbers.items()]
        return f"{self.name} ({', '.join(shown)})" if shown else self.name

    @property
    def reference(self) -> str:
        reference: str = self.rule.claim.reference
        return reference

    @property
    def complexity(self) -> tuple[bool, int, int, str]:
        """The simplest rule first: no number fitted, few numbers, few lines."""
        kind = type(self.rule)
        return bool(self.fitted), len(fields(kind)), len(inspect.getsource(kind).splitlines()), self.name


def suspects() -> Iterator[tuple[str, type[Any]]]:
    """The planted defects on a finite vocabulary, and its rules that are not exact by their own claim, or by round."""
    for folder in ("saboteurs", "verifiers"):
        for name, kind in catalog(folder).items():
            if finite(kind.claim) and (not kind.claim.exact or kind.claim.level == "sequence"):
                yield name, kind


def agreeing(
    cases: Sequence[Case], kinds: Sequence[tuple[str, type[Any]]], same: float, fit: bool = True
) -> tuple[list[Candidate], list[tuple[float, Candidate]]]:
    """The candidates whose law is the one found in every case; and the others by their mean distance in the first case.

    A rule's law is computed in one case after the other for as long as it agrees: the first case should be a cheap one.
    Numbers are fitted, if asked for, only where no rule agrees as it stands.
    """
    away: list[tuple[float, Candidate]] = []
    for variants in (_as_it_stands, _with_its_number)[: 1 + fit]:
        alike: list[Candidate] = []
        for name, kind in kinds:
            try:
                for candidate in variants(name, kind, cases, same):
                    distances = cases[0].distances(candidate.rule)
                    if bool((distances < same).all()) and all(case.agrees(candidate.rule, same) for case in cases[1:]):
                        alike.append(candidate)
                    else:
                        away.append((float(distances.mean()), candidate))
            except (NotEnumerable, RowsDependent, EnumerationExploded):
                continue  # a draw without finitely many values, a defect of batches, or more leaves than are worth it
        if alike:
            return alike, away
    return [], away


def _as_it_stands(name: str, kind: type[Any], cases: Sequence[Case], same: float) -> Iterator[Candidate]:
    """The rule as it stands; where a switch is all it has, with that turned as well; a Jacobi rule with each entry that
    is a law of the column before.
    """
    yield Candidate(name, kind())
    if issubclass(kind, Jacobi):
        yield Candidate(name, kind(entry="repeat"))
    if [str(number.type) for number in fields(kind)] == ["bool"]:
        switch = fields(kind)[0].name
        yield Candidate(name, replace(kind(), **{switch: not getattr(kind(), switch)}), switch)


def _with_its_number(name: str, kind: type[Any], cases: Sequence[Case], same: float) -> Iterator[Candidate]:
    """The rule with its number fitted, where a number is all it has."""
    if [str(number.type) for number in fields(kind)] == ["float"]:
        number = fields(kind)[0].name
        rule = _fitted(kind, number, cases, same)
        if rule is not None:
            yield Candidate(name, rule, number)


def _fitted(kind: type[Any], number: str, cases: Sequence[Case], same: float) -> Any:
    """The rule with its one number in (0, 1] fitted to the first case and to those that this does not settle; None
    where no number takes its law as far from the target's as the law found.
    """
    fit, rule = [cases[0]], kind()
    for _ in range(REFITS):
        ends = [replace(kind(), **{number: end}) for end in (LEAST, MOST)]

        def beyond(rule: Any) -> float:
            """By how much the rule goes further in the direction of the bias than the law found."""
            return sum(float(((case.of(rule) - case.found) * (case.found - case.wanted).sign()).sum()) for case in fit)

        if beyond(ends[0]) * beyond(ends[1]) > 0:
            return None
        for precision in (COARSE, 1e-15):  # the fine search only where the coarse one comes near
            found = brentq(lambda value: beyond(replace(kind(), **{number: value})), LEAST, MOST, xtol=precision)
            rule = replace(kind(), **{number: found})
            if float(max(case.distances(rule).max() for case in fit)) > 10 * precision + same:
                return rule
        # A case may leave the number open, where probabilities are cut off at 1, say: the next one settles it.
        off = next((case for case in cases if case not in fit and not case.agrees(rule, same)), None)
        if off is None:
            return rule
        fit.append(off)
    return rule
