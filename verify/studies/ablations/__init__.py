"""The published ablations of continuous speculative decoding, on trained heads, for its rule and for exact ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from verify.studies.ablations import drawings, tables
from verify.studies.ablations.cells import Cell, Setting, measure
from verify.studies.ablations.distance import Apart, distances
from verify.studies.ablations.rules import ALIGNMENTS, BESIDE, SWEPT
from verify.studies.ablations.words import text
from verify.study import Study
from verify.verifier import Verifier


@dataclass(frozen=True)
class Size:
    """What a study runs: ``start``, from which one thing at a time is changed; sequences a cell, and in the first one,
    whose places are looked at; the values of the sweeps; the ``beside`` data, with their own number of sequences.
    """

    start: Setting
    rows: int
    first: int
    temperatures: tuple[float, ...]
    guidances: tuple[float, ...]
    beside: Mapping[str, int]

    @property
    def equal(self) -> Setting:
        """The start with one variance for both models."""
        return replace(self.start, variance="equal")

    @property
    def others(self) -> list[Setting]:
        """The start on other data."""
        return [replace(self.start, data=name) for name in self.beside]


SIZES: Mapping[str, Size] = {
    "quick": Size(Setting(steps=12, length=24), 40, 120, (0.7, 1.3), (2.0, 4.0), {"low_rank": 10}),
    "thorough": Size(
        Setting(steps=50, length=48), 200, 1000, (0.5, 0.7, 0.85, 1.15, 1.3, 1.5), (1.5, 2.0, 3.0, 4.0, 6.0),
        {"low_rank": 100},
    ),
}  # fmt: skip


def run(budget: str = "quick") -> Study:
    """Measure, tabulate and draw."""
    size = SIZES[budget]
    cells = [measure(*job, seed) for seed, job in enumerate(jobs(size))]
    seeds = count(len(cells))
    apart = [distances(setting, 20 * size.rows, 3 * next(seeds)) for setting in (size.start, *size.others)]
    return present(cells, size, apart)


def jobs(size: Size) -> Iterator[tuple[str, Verifier, Setting, int]]:
    """Every cell: the name of a rule, the rule, the setting and the number of sequences."""
    start, rows = size.start, size.rows
    swept = [
        *(replace(start, nodes=nodes) for nodes in tables.NODES if nodes != start.nodes),
        *(replace(start, prefilled=share) for share in tables.SHARES if share != start.prefilled),
        *(replace(start, temperature=value) for value in size.temperatures),
        *(replace(start, guidance=value) for value in size.guidances),
    ]
    for name, rule in SWEPT.items():
        yield name, rule, start, size.first
        yield from ((name, rule, setting, rows) for setting in swept)
    for name, rule in BESIDE.items():
        yield from ((name, rule, replace(start, nodes=nodes), rows) for nodes in sorted({start.nodes, *tables.NODES}))
    for item in ALIGNMENTS:
        if item.name not in (*SWEPT, *BESIDE):
            yield item.name, item.rule, start, rows
        yield item.name, item.rule, size.equal, rows
        yield from ((item.name, item.rule, setting, size.beside[setting.data]) for setting in size.others)


def present(cells: Sequence[Cell], size: Size, apart: Sequence[Apart]) -> Study:
    """The study of what was measured."""
    start = size.start
    return Study(
        title="Continuous speculative decoding: the published ablations, and those of exact rules",
        text="\n\n".join(text(cells, start, size.equal, apart)),
        tables={
            "Tests passed, by what the chains of drafter and target share": list(
                tables.aligned(cells, (start, size.equal, *size.others))
            ),
            "By draft length": list(tables.lengths(cells, start)),
            "Published acceptance by draft length, three pairs of models": list(tables.theirs()),
            "Tests passed, by the share of tokens that the target makes first": list(tables.prefilled(cells, start)),
            "Tests passed, by place in the sequence": list(tables.places(cells, start)),
            "Tests passed, by temperature": list(tables.swept(cells, start, "temperature")),
            "Tests passed, by guidance": list(tables.swept(cells, start, "guidance")),
            "Draws that a residual took": list(tables.tries(cells, start)),
        },
        figures={
            "By draft length, with 95 % intervals; grey: table 3, aligned, the mean and the range of three pairs.": (
                drawings.lengths(cells, start)
            ),
            "Along the sequence, with 95 % intervals; grey: table 4, the mean and the range of three pairs.": (
                drawings.sequence(cells, start)
            ),
            "By temperature and guidance, with 95 % intervals.": drawings.knobs(cells, start),
        },
    )
