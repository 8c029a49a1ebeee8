"""What coupling is for: target evaluations an image, under every Jacobi rule, on a random and on a trained model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from distributions.tape import GeneratorTape
from verify.studies.jacobi import drawings, tables
from verify.studies.jacobi.cells import (
    CHAINS,
    SETTINGS,
    SHARPNESS,
    STRENGTHS,
    SWEPT,
    Cells,
    Swept,
    digits,
    grid,
    windows,
)
from verify.studies.jacobi.text import text
from verify.study import Study
from verify.verifiers.scd import Scd
from verify.work import Subject, Work, ancestral, measure, rules


def run(budget: str = "quick") -> Study:
    """Measure, tabulate and draw; ``budget`` says how many images a cell has (``cells.CHAINS``)."""
    chains, seed = CHAINS[budget], count()
    more = 2 * chains  # digits are small and cheap
    subjects = [*((grid(sharpness), chains) for sharpness in SHARPNESS), (digits(more), more)]
    cells = {subject.name: cells_of(subject, number, seed) for subject, number in subjects}
    strength = {subject.name: strengths_of(subject, number, seed) for subject, number in subjects}
    return present(cells, processings(more, seed), strength)


def cells_of(subject: Subject, chains: int, seed: Iterator[int]) -> list[Work]:
    """Ancestral sampling, then every rule at every window."""
    found = [ancestral(subject, chains, GeneratorTape(next(seed)))]
    for name, rule in rules().items():
        found += [measure(subject, name, rule, window, chains, next(seed)) for window in windows(name)]
    return found


def strengths_of(subject: Subject, chains: int, seed: Iterator[int]) -> list[tuple[float, Work]]:
    """Maximal coupling from none to all of the time."""
    return [(x, measure(subject, "scd", Scd(strength=x), SWEPT, chains, next(seed))) for x in STRENGTHS]


def processings(chains: int, seed: Iterator[int]) -> Swept:
    """The trained model at other temperatures, top-k and guidance."""
    known = {name: rules()[name] for name in ("sjd", "scd", "scd_gumbel")}
    return {
        setting: [
            (value, measure(digits(chains, **{setting: value}), name, rule, SWEPT, chains, next(seed)))
            for value in values
            for name, rule in known.items()
        ]
        for setting, values in SETTINGS.items()
    }


def present(cells: Cells, swept: Swept, strength: Swept) -> Study:
    """The study of what was measured; the last model's speed-ups are those set against the time of a pass."""
    gates, times = list(tables.gates(cells)), list(tables.times(list(cells.values())[-1]))
    return Study(
        title="Jacobi decoding: what coupling the drafts is for",
        text=text(cells, gates, strength, times),
        tables={
            "Speed-up in target evaluations by window, with 95 % intervals": list(tables.speedups(cells)),
            f"Drafts that wait, at window {SWEPT}": list(tables.waiting(cells)),
            "The scale gate": gates,
            f"The trained model processed otherwise, at window {SWEPT}": list(tables.processed(swept)),
            f"Maximal coupling of some strength, at window {SWEPT}": list(tables.strengths(strength)),
            "What a window costs on this machine": times,
            "Published figures, and the same rule at the same window here": list(tables.published(cells)),
            "Every cell": list(tables.every(cells)),
        },
        figures={
            "Target evaluations saved, against the window, with 95 % intervals. Drafts that are redrawn (sjd) stop "
            "gaining where coupled ones go on.": drawings.speedups(cells),
            "The scale gate: the mean of -log p - H(p) a token, zero for a lossless rule. The band holds 95 % of "
            "lossless runs.": drawings.scale(cells),
            f"The trained model under other processing, and the strength of the coupling, at window {SWEPT}.": (
                drawings.sweeps(swept, strength, cells)
            ),
        },
    )
