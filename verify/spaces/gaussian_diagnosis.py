"""Which known defect does a wrong sampler of continuous tokens have? Its rows beside those of every lossy rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verify.diagnosis.nearest import UNKNOWN, named
from verify.diagnosis.suspects import Candidate
from verify.spaces.gaussian_rows import Rows
from verify.spaces.gaussian_rules import suspected
from verify.spaces.gaussian_suspects import Case, as_it_stands, beside, some_of, with_its_number
from verify.verifiers.rejection import Rejection

SKETCH, FULL = 4_096, 32_768
"""Rows of each pair on which a rule is first laid beside the function; and then, if few rows leave it."""
LEVEL = 1e-3
"""The probability at most with which the right name is withheld."""
PLAIN = 25.0
"""How plain the bias must be in one statistic, in its standard deviations. What a candidate can differ by unnoticed is
some four of them, and they grow with the square of a distance: two fifths of the bias."""


def diagnose_gaussian(first: Sequence[Rows], seed: int = 0) -> str:
    """The rule whose rows are those of the function, in every statistic compared; that none has; or, where the rows are
    too few to tell one rule from another, nothing.

    On pair after pair the rows are compared with as many fresh ones of every suspect (``differences``), as long as no
    statistic differs. A rule is named if its whole law agrees, jointly with the draft; if only the drafts kept and the
    law of what is emitted do, it is said that the coupling is another one. Where no rule agrees as it stands, its one
    number, if it has one, is fitted. The seed is that of the rules' own draws.
    """
    chosen = [rows for rows in first if rows.finite and rows.pair.overlap < 1 - 1e-12]
    chosen.sort(key=lambda rows: rows.pair.overlap < 0.05)  # slow for some, and telling for few
    plain = [_plainness(rows, seed + place) for place, rows in enumerate(chosen)]
    if not any(size >= PLAIN for size in plain):
        return ""
    cases = [Case(some_of(rows, SKETCH), some_of(rows, FULL)) for rows in chosen]
    alike: list[tuple[Candidate, str]] = []
    otherwise: list[tuple[Candidate, str]] = []
    for variants in (as_it_stands, with_its_number):
        for name, kind in suspected():
            for candidate in variants(name, kind, cases, seed):
                seen = compare(candidate.rule, cases, plain, seed)
                note = "" if seen.pairs == len(cases) else f" on {seen.pairs} of {len(cases)} pairs"
                (alike if seen.jointly else otherwise if seen.apart else []).append((candidate, note))
        if alike:
            return named(alike, "behaves like")
    if otherwise:
        return named(otherwise, "couples otherwise, but keeps as often and emits the law of")
    return f"{UNKNOWN}; {_branch(cases, seed)}"


@dataclass(frozen=True)
class Comparison:
    """Whether a rule emits and keeps as the function does, draft and output ``apart``, and whether it does so
    ``jointly``, on how many of the ``pairs``: those that the rule takes.
    """

    apart: bool
    jointly: bool
    pairs: int


def compare(rule: Any, cases: Sequence[Case], plain: Sequence[float], seed: int) -> Comparison:
    """A rule's rows beside the function's on pair after pair: few rows first, and then the most there are."""
    apart = jointly = True
    taken = list(range(len(cases)))
    for rows in ([case.few for case in cases], [case.many for case in cases]):
        for place in list(taken):
            found = beside(rule, rows[place], seed + place)
            if found is None:
                taken.remove(place)
                continue
            level = LEVEL / (2 * len(found) * len(cases))
            apart &= all(item.p_value > level for item in found if item.part != "coupling")
            jointly &= all(item.p_value > level for item in found)
            if not apart:
                return Comparison(False, False, len(taken))
    enough = any(plain[place] >= PLAIN for place in taken)
    return Comparison(enough, enough and jointly, len(taken))


def _plainness(rows: Rows, seed: int) -> float:
    """The largest difference from an exact rule: in the law, or in the drafts kept if they are more than may be."""
    found = beside(Rejection(), rows, seed) or []
    parts = ("law", "kept") if float(rows.accepted.double().mean()) > rows.pair.overlap else ("law",)
    return max(item.size for item in found if item.part in parts)


def _branch(cases: Sequence[Case], seed: int) -> str:
    """Whether what the function keeps is what rejection keeps."""
    for place, case in enumerate(cases):
        found = beside(Rejection(), case.many, seed + place) or []
        if any(item.part == "kept" and item.p_value < LEVEL / len(cases) for item in found):
            return "it keeps other drafts than rejection does"
    return "it keeps as rejection does, and what it puts in place of the others is wrong"
