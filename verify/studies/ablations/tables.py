"""The study's tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from verify.estimates import Estimate, plus_minus
from verify.studies.ablations import published
from verify.studies.ablations.cells import Cell, Setting
from verify.studies.ablations.rules import ALIGNMENTS, BESIDE, LIMIT, SWEPT
from verify.study import Row

PLACES = 3
"""Stretches into which a sequence is cut."""
NODES = (4, 8, 16, 32)
SHARES = (0.0, 0.05, 0.15)


def at(cells: Sequence[Cell], rule: str, setting: Setting) -> Cell | None:
    """The cell of a rule in a setting, where there is one."""
    return next((cell for cell in cells if (cell.rule, cell.setting) == (rule, setting)), None)


def along(cells: Sequence[Cell], rule: str, start: Setting, name: str) -> list[tuple[float, Cell]]:
    """The cells of a rule whose settings differ from ``start`` in ``name`` only, by its value, in order."""
    found = [
        (float(getattr(cell.setting, name)), cell)
        for cell in cells
        if cell.rule == rule and replace(cell.setting, **{name: getattr(start, name)}) == start
    ]
    return sorted(found, key=lambda item: item[0])


def told(value: Estimate | None) -> str:
    """A mean and its standard error."""
    return "" if value is None else plus_minus(value)


def aligned(cells: Sequence[Cell], settings: Sequence[Setting]) -> Iterator[Row]:
    """Tests passed, by what the two chains share, in each setting; and Table 3 at the same draft length."""
    for item in ALIGNMENTS:
        row: Row = {"test": item.test, "chains": item.chains, "exact": "yes" if item.exact else "no"}
        for setting in settings:
            cell = at(cells, item.name, setting)
            row = {**row, f"{setting.data}, {setting.variance} variance": told(cell.token if cell else None)}
        names = {"own noise": "unaligned", "shared noise": "aligned"}
        theirs = "" if item.exact else published.span(3, names[item.chains], settings[0].nodes)
        yield {**row, "published, table 3": theirs}


def lengths(cells: Sequence[Cell], start: Setting) -> Iterator[Row]:
    """A row for each rule and draft length."""
    for rule in (*SWEPT, *BESIDE):
        for nodes, cell in along(cells, rule, start, "nodes"):
            yield {
                "rule": rule,
                "draft length": int(nodes),
                "tests passed": told(cell.token),
                "kept of drafted": told(cell.alpha),
                "tokens a round": told(cell.emitted),
            }


def theirs() -> Iterator[Row]:
    """Table 1 and the two columns of table 3, and how often a test must pass if drafts behind a rejection are lost."""
    for nodes in NODES:
        row: Row = {"draft length": nodes}
        for table, setting in ((1, "pre-filled 15 %"), (3, "unaligned"), (3, "aligned")):
            row = {**row, f"table {table}, {setting}": published.span(table, setting, nodes)}
        found = sorted(published.needed(alpha, nodes) for alpha in published.alphas(3, "aligned", nodes).values())
        yield {**row, "tests passed, if table 3 has rollback": f"{found[0]:.2f} to {found[-1]:.2f}"}


def prefilled(cells: Sequence[Cell], start: Setting) -> Iterator[Row]:
    """A row for each share, a column for each rule, tests passed; beside Table 4."""
    for share in SHARES:
        found = {rule: at(cells, rule, replace(start, prefilled=share)) for rule in SWEPT}
        row: Row = {"pre-filled": f"{share:.0%}"} | {
            rule: told(cell.token if cell else None) for rule, cell in found.items()
        }
        yield {**row, "published, table 4": published.span(4, f"pre-filled {100 * share:g} %", start.nodes)}


def places(cells: Sequence[Cell], start: Setting) -> Iterator[Row]:
    """Tests passed in each stretch of the sequence, a column for each rule."""
    found = {rule: cell.by_place(PLACES) for rule in SWEPT if (cell := at(cells, rule, start))}
    size = start.length // PLACES
    for place in range(PLACES):
        row: Row = {"tokens": f"{place * size + 1} to {(place + 1) * size}"}
        yield {**row, **{rule: told(each[place]) for rule, each in found.items()}}


def swept(cells: Sequence[Cell], start: Setting, name: str) -> Iterator[Row]:
    """Tests passed, a row for each value of a setting and a column for each rule."""
    values = sorted({place for rule in SWEPT for place, _ in along(cells, rule, start, name)})
    for value in values:
        found = {rule: dict(along(cells, rule, start, name)).get(value) for rule in SWEPT}
        yield {name: value} | {rule: told(cell.token if cell else None) for rule, cell in found.items()}


def tries(cells: Sequence[Cell], start: Setting) -> Iterator[Row]:
    """How many draws a residual took."""
    for rule in SWEPT:
        cell = at(cells, rule, start)
        if cell is None or not len(cell.tries):
            continue
        count = cell.tries
        total, most = int(count.sum()), len(count)
        mean = float((count * (1 + count.new_tensor(range(most)))).sum()) / total
        row: Row = {"rule": rule, "residuals": total, "draws each": mean}
        row = {**row, **{f"{place} draws" if place > 1 else "1 draw": share(cell, place) for place in (1, 2, 3)}}
        yield {**row, "most": most, "a draw is": "a path" if rule == "whole_path" else f"one step, {LIMIT} at most"}


def share(cell: Cell, place: int) -> float:
    """The share of residuals that took ``place`` draws."""
    return float(cell.tries[place - 1]) / float(cell.tries.sum()) if place <= len(cell.tries) else 0.0
