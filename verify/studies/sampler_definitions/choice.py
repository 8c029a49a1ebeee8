"""Which definition to choose: the most accepted of those whose tokens are as near to the data as any's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from verify.estimates import Estimate
from verify.studies.sampler_definitions.cells import FLOW, Cell, Definition

ERRORS = 2.0
"""Standard errors within which two distances count as equal."""


def of(cells: Iterable[Cell], data: str, definition: Definition | None = None) -> list[Cell]:
    """The cells of one data set, or the one of a definition."""
    return [cell for cell in cells if cell.data == data and definition in (None, cell.definition)]


def best(cells: Sequence[Cell]) -> Cell:
    """The cell nearest to the data."""
    return min(cells, key=lambda cell: cell.distance[0])


def as_good(cells: Sequence[Cell]) -> list[Cell]:
    """Those no further from the data than the nearest one by more than ``ERRORS`` errors of the difference."""
    nearest = best(cells).distance
    return [x for x in cells if x.distance[0] - nearest[0] <= ERRORS * math.hypot(x.distance[1], nearest[1])]


def eligible(cells: Sequence[Cell], names: Sequence[str], rule: str) -> set[Definition]:
    """The definitions that ``rule`` can read and that are as good as any on every data set."""
    each = [{cell.definition for cell in as_good(of(cells, name)) if rule in cell.accepted} for name in names]
    return set.intersection(*each)


def recommended(cells: Sequence[Cell], names: Sequence[str], rule: str) -> Definition | None:
    """The eligible definition that ``rule`` accepts most of, in the mean over data sets; None where there is none."""
    held = eligible(cells, names, rule)
    return max(held, key=lambda item: (share(cells, names, rule, item)[0], str(item)), default=None)


def rivals(cells: Sequence[Cell], names: Sequence[str], rule: str, chosen: Definition) -> list[Definition]:
    """Other eligible definitions whose acceptance is within ``ERRORS`` errors of the difference to the chosen one's."""
    mean, error = share(cells, names, rule, chosen)
    found = []
    for item in eligible(cells, names, rule) - {chosen}:
        other = share(cells, names, rule, item)
        if mean - other[0] <= ERRORS * math.hypot(error, other[1]):
            found.append(item)
    return sorted(found, key=str)


def share(cells: Sequence[Cell], names: Sequence[str], rule: str, definition: Definition) -> Estimate:
    """Mean acceptance over data sets."""
    return pooled([of(cells, name, definition)[0].accepted[rule] for name in names])


def pooled(each: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates."""
    return sum(item[0] for item in each) / len(each), math.hypot(*(item[1] for item in each)) / len(each)


def noise_costs(cells: Sequence[Cell]) -> tuple[float, float]:
    """What noise in the last step adds to the distance: the largest of all definitions, and its error of the mean of
    the two (they are measured on the same paths, so their difference is known better than this).
    """
    quiet = {
        (cell.data, cell.definition.steps, cell.definition.start, cell.definition.variance): cell
        for cell in cells
        if not cell.definition.last_noise and cell.definition.variance != FLOW
    }
    found = []
    for cell in cells:
        if cell.definition.last_noise:
            other = quiet[cell.data, cell.definition.steps, cell.definition.start, cell.definition.variance]
            found.append((cell.distance[0] - other.distance[0], cell.distance[1]))
    return max(found, key=lambda item: abs(item[0]))
