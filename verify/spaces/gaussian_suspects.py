"""The candidates of a diagnosis on continuous tokens: lossy rules, their numbers fitted to the rows of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from scipy.optimize import brentq

from distributions.tape import GeneratorTape
from verify.diagnosis.suspects import Candidate
from verify.residual import ThinningCapped
from verify.spaces.gaussian_portrait import Difference, differences, repeats
from verify.spaces.gaussian_rows import Rows
from verify.spaces.gaussian_rules import rows_of, verified

FAR = 1e-6
"""A rule whose law differs at this level on few rows, its number fitted to them, is not looked at further."""


@dataclass(frozen=True, eq=False)
class Case:
    """A function's rows on one pair: ``few`` to begin with, and ``many``."""

    few: Rows
    many: Rows


def some_of(rows: Rows, size: int) -> Rows:
    """At most ``size`` of the rows."""
    parts = (rows.drafted, rows.emitted, rows.call, rows.place)
    return Rows(rows.pair, *(part[-size:] for part in parts))


def beside(rule: Any, rows: Rows, seed: int) -> list[Difference] | None:
    """The rows of a function and as many of a rule. None where the rule does not take such laws."""
    try:
        return differences(rows, rows_of(rule, rows.pair, [len(rows.emitted)], seed))
    except (TypeError, ThinningCapped):
        return None


def as_it_stands(name: str, kind: type[Any], cases: Sequence[Case], seed: int) -> Iterator[Candidate]:
    """The rule, and where a switch is all it has, with that turned as well."""
    yield Candidate(name, kind())
    if [str(number.type) for number in fields(kind)] == ["bool"]:
        switch = fields(kind)[0].name
        yield Candidate(name, replace(kind(), **{switch: not getattr(kind(), switch)}), switch)


def with_its_number(name: str, kind: type[Any], cases: Sequence[Case], seed: int) -> Iterator[Candidate]:
    """The rule with its number fitted, where a number is all it has: a real one, which moves the acceptance, to the
    share of drafts kept; a whole one, which counts tries, to the share of repeated values.
    """
    types = [str(number.type) for number in fields(kind)]
    if types in (["float"], ["int"]):
        measure: Measure = (_kept, _predicted) if types == ["float"] else (_repeated, _repeated_by)
        rule = _fitted(kind, fields(kind)[0].name, measure, cases, seed)
        if rule is not None:
            yield Candidate(name, rule, fields(kind)[0].name)


Measure = tuple[Callable[[Rows], float], Callable[[Any, Rows, int], float]]


def _kept(rows: Rows) -> float:
    return float(rows.accepted.double().mean())


def _predicted(rule: Any, rows: Rows, seed: int) -> float:
    """The share kept of these very drafts, by the rule's own account."""
    made = verified(rule, rows.pair.draft, rows.pair.target, rows.drafted.double().unsqueeze(1), GeneratorTape(seed))
    return float(made.log_accept.exp().mean())


def _repeated(rows: Rows) -> float:
    return float(repeats(rows).double().mean())


def _repeated_by(rule: Any, rows: Rows, seed: int) -> float:
    return _repeated(rows_of(rule, rows.pair, [len(rows.emitted)], seed))


def _sketched(rule: Any, cases: Sequence[Case], seed: int) -> bool:
    """Whether the law of a rule is near the function's on few rows, as it will be with a number found on few rows."""
    for place, case in enumerate(cases):
        found = beside(rule, case.few, seed + place)
        if found is not None and any(item.p_value < FAR for item in found if item.part == "law"):
            return False
    return True


def _fitted(kind: type[Any], number: str, measure: Measure, cases: Sequence[Case], seed: int) -> Any:
    """The rule whose measure is that of the function, summed over two pairs: on few rows first, and where that is
    near enough on the most there are. None where no number between 1 / 1024 and 1024 times the default has it.
    """
    of_rows, of_rule = measure
    start = getattr(kind(), number)

    def with_number(log_factor: float) -> Any:
        value = start * 2**log_factor
        return replace(kind(), **{number: round(value) if isinstance(start, int) else float(f"{value:.4g}")})

    def zero(some: Sequence[Rows], ends: tuple[float, float], precision: float) -> float | None:
        wanted = sum(of_rows(rows) for rows in some)

        def beyond(log_factor: float) -> float:
            rule = with_number(log_factor)
            return sum(of_rule(rule, rows, seed) for rows in some) - wanted

        found = _sign_change(beyond, ends)
        return None if found is None else float(brentq(beyond, *found, xtol=precision))

    telling = (cases[0], max(cases, key=lambda case: of_rows(case.many)))
    coarse = zero([case.few for case in telling], (-10.0, 10.0), 0.02)
    if coarse is None or not _sketched(with_number(coarse), cases, seed):
        return None
    fine = zero([case.many for case in telling], (coarse - 0.5, coarse + 0.5), 1e-3)
    return None if fine is None else with_number(fine)


def _sign_change(beyond: Callable[[float], float], ends: tuple[float, float]) -> tuple[float, float] | None:
    """Numbers within ``ends`` between which ``beyond`` changes its sign, looked for from the middle outwards; numbers
    that a rule refuses end the search on their side.
    """
    middle = (ends[0] + ends[1]) / 2
    for end in ends:
        last, value = middle, beyond(middle)
        for step in range(1, 5):
            place = middle + (end - middle) * (step / 4) ** 2
            try:
                found = beyond(place)
            except ValueError:
                break
            if found * value <= 0:
                return min(last, place), max(last, place)
            last, value = place, found
    return None
