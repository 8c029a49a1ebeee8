"""The verdicts in groups, what each group amounts to, and the law found beside the law wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from verify.records import Counterexample, Verdict
from verify.report.store import STATUSES, Results
from verify.report.words import sampled

MOST_OUTCOMES = 12
FAMILIES = {
    "saboteurs/": ("Planted defects", "public bugs and mutants, re-enacted one file each; all must be found"),
    "controls/": ("Controls", "lossless rules that were called lossy somewhere; all must pass"),
    "transformers ": ("transformers as installed", "its sampler, unedited, as it is called and as it can be misused"),
    "": ("Built-in verifiers", "each held against its own claim, lossless or lossy"),
}


@dataclass(frozen=True)
class Row:
    """A verdict and its place in the table, from 1."""

    number: int
    verdict: Verdict

    @property
    def surprise(self) -> bool:
        """Whether the verdict is not the one expected."""
        return not self.verdict.as_expected

    @property
    def remarkable(self) -> bool:
        """Whether there is more to say than the table says."""
        verdict = self.verdict
        return bool(verdict.counterexample or verdict.needs or verdict.diagnosis or verdict.notes or self.surprise)


@dataclass(frozen=True)
class Group:
    """Verdicts of one family, in the order of the audit."""

    name: str
    about: str
    rows: tuple[Row, ...]

    def count(self, status: str) -> int:
        """How many have that status."""
        return sum(row.verdict.status == status for row in self.rows)

    @property
    def surprises(self) -> int:
        """How many are not as expected."""
        return sum(row.surprise for row in self.rows)


@dataclass(frozen=True)
class Outcome:
    """One outcome of the first place where two laws part; ``share`` of the widest bar, in percent."""

    name: str
    wanted: float
    found: float
    wanted_share: float
    found_share: float


def groups(rows: Sequence[Row]) -> list[Group]:
    """The families that have members, the built-in verifiers first."""
    members: dict[str, list[Row]] = {prefix: [] for prefix in ("", *FAMILIES)}
    for row in rows:
        members[next(prefix for prefix in FAMILIES if row.verdict.subject.startswith(prefix))].append(row)
    return [Group(*FAMILIES[prefix], tuple(found)) for prefix, found in members.items() if found]


def outcomes(case: Counterexample) -> tuple[list[Outcome], int]:
    """The law found beside the law wanted, the dozen outcomes that differ most; and how many more there are."""
    every = list(dict.fromkeys([*case.wanted, *case.found]))
    gap = {item: abs(case.found.get(item, 0.0) - case.wanted.get(item, 0.0)) for item in every}
    shown = set(sorted(every, key=lambda item: -gap[item])[:MOST_OUTCOMES])
    room = max([*case.wanted.values(), *case.found.values(), 1e-300])
    rows = []
    for item in every:
        if item in shown:
            wanted, found = case.wanted.get(item, 0.0), case.found.get(item, 0.0)
            rows.append(Outcome(item, wanted, found, 100 * wanted / room, 100 * found / room))
    return rows, len(every) - len(rows)


def tiles(results: Results, risk: float) -> list[tuple[str, str]]:
    """The opening's figures: a number and what it counts."""
    every = results.verdicts
    found = groups([Row(number, verdict) for number, verdict in enumerate(every, 1)])
    exact = len(every) - len(sampled(every))
    numbers = [(f"{len(every)}", "functions judged"), (f"{exact}", "of them by enumeration: computed, not sampled")]
    for group in found:
        if group.name == FAMILIES["saboteurs/"][0]:
            numbers.append((f"{group.count('lossy')} of {len(group.rows)}", "planted defects found"))
        if group.name == FAMILIES["controls/"][0]:
            numbers.append((f"{group.count('lossy')} of {len(group.rows)}", "lossless controls accused"))
    if risk > 0:
        numbers.append((f"1 in {math.floor(1 / risk):,}", "at most, the chance that any verdict by samples is wrong"))
    return numbers


def separation(verdicts: Sequence[Verdict]) -> str:
    """How far apart enumeration keeps lossless and lossy."""
    exact = [verdict for verdict in verdicts if verdict.evidence == "exact"]
    biases = {status: [verdict.bias_upper for verdict in exact if verdict.status == status] for status in STATUSES}
    if not biases["lossless"] or not biases["lossy"]:
        return ""
    return (
        f"Among enumerated verdicts the largest bias of a lossless one is {max(biases['lossless']):.1e}, which is "
        f"rounding; the smallest of a lossy one is {min(biases['lossy']):.1e}. Nothing lies between."
    )
