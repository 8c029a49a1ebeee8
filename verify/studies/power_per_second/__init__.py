"""What a second of computing buys: the power of two-sample tests against their CPU time, all in one run."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from distributions.tape import GeneratorTape
from verify.report.curves import PALETTE, legend, panels
from verify.report.figures import MUTED
from verify.studies.power_per_second.alternatives import ALTERNATIVES, Alternative
from verify.studies.power_per_second.compared import BOOTSTRAPS, Subject, subjects
from verify.study import Row, Study

ALPHA, POWER = 1e-3, 0.9
SIZES = (256, 1024, 4096, *(1 << bits for bits in range(14, 21)))
"""Pairs of rows, more and more until every run rejects or the seconds are spent."""
BUDGETS = {"quick": (3, 1.8), "thorough": (20, 60.0)}
"""Runs of each test at each size, and the CPU seconds it may take against each alternative."""
TEXT = """Two samples of n rows each, the second from the truth, and a test of their equality at level 1e-3. Each test
has {seconds:g} CPU seconds against each alternative: n grows from 256 until all {runs} runs reject, or until the next
size would not fit. The time is that of the process, one thread, data not counted; a check that learns pays for its
pilot in rows and in seconds. n90 and its seconds are interpolated where the power passes 0.9; a dash: not within the
seconds given, and then the last size and the power there say how far it came.

The alternatives: *mean shift*, N(0.02, 1) for N(0, 1), on the line; *contamination*, one row in a hundred of sixteen
dimensions from a blob three deviations away; *dependence*, chains with coefficient 0.48 for 0.50 and marginals that do
not change. Tests on the line are asked of every coordinate, Bonferroni over them.

{verdict}

hyppo's tests have its chi-square p-value, since {bootstraps} permutations would multiply their time by as much; the
plain MMD has a Gaussian kernel of the median distance and {bootstraps} draws of the wild bootstrap. A kernel test takes
time in n squared, and effects below a hundredth need n near 1e5: that is all there is to the difference. {absent}"""


@dataclass(frozen=True)
class Cell:
    """A test at one size: the share of runs that reject, and CPU seconds a run."""

    pairs: int
    power: float
    seconds: float


def run(budget: str = "quick") -> Study:
    """The ladder of every test against every alternative."""
    return compare(*BUDGETS[budget])


def compare(runs: int, seconds: float, sizes: Sequence[int] = SIZES) -> Study:
    """The study with that many runs a cell and CPU seconds a ladder."""
    torch.set_num_threads(1)
    known, absent = subjects()
    found = {
        case: {name: ladder(subject, draw, runs, seconds, sizes) for name, subject in known.items()}
        for case, draw in ALTERNATIVES.items()
    }
    names = {f"{case}: rows and CPU seconds for power 0.9": case for case in found}
    tables = {caption: _table(found[case]) for caption, case in names.items()}
    text = TEXT.format(
        seconds=seconds, runs=runs, verdict=_verdict(tables, known), bootstraps=BOOTSTRAPS, absent=absent
    )
    caption = "Power at level 1e-3 against CPU seconds of one test; checks of this package in full lines"
    return Study("Power per second", text, tables, {caption: _figure(found, known)})


def ladder(subject: Subject, draw: Alternative, runs: int, seconds: float, sizes: Sequence[int] = SIZES) -> list[Cell]:
    """The cells of one test, until every run rejects, or the next size would need more than is left of ``seconds``."""
    subject.test(*draw(sizes[0], GeneratorTape(1 << 20)))  # imports and compilation are not the test's
    cells: list[Cell] = []
    for pairs in sizes:
        if pairs > subject.most or runs * _expected(cells, pairs) > seconds:
            break
        cells.append(_cell(subject, draw, pairs, runs))
        seconds -= runs * cells[-1].seconds
        if cells[-1].power == 1.0:
            break
    return cells


def _expected(cells: Sequence[Cell], pairs: int) -> float:
    """CPU seconds of a run at the next size: a power of n between the first and the second, as the last two show."""
    if not cells:
        return 0.0
    power = 1.0
    if len(cells) > 1:
        power = math.log(cells[-1].seconds / cells[-2].seconds, cells[-1].pairs / cells[-2].pairs)
    return cells[-1].seconds * math.pow(pairs / cells[-1].pairs, min(2.0, max(1.0, power)))


def _cell(subject: Subject, draw: Alternative, pairs: int, runs: int) -> Cell:
    hits, spent = 0, 0.0
    for seed in range(runs):
        x, y = draw(pairs, GeneratorTape(seed))
        start = time.process_time()
        hits += subject.test(x, y) <= ALPHA
        spent += time.process_time() - start
    return Cell(pairs, hits / runs, max(spent / runs, 1e-6))  # the clock has steps


def needed(cells: Sequence[Cell]) -> tuple[float, float] | None:
    """Pairs and seconds at power 0.9, interpolated in their logarithms after the last cell below; None beyond."""
    below = max((place for place, cell in enumerate(cells) if cell.power < POWER), default=-1)
    if below == len(cells) - 1:
        return None
    if below < 0:
        return float(cells[0].pairs), cells[0].seconds
    low, high = cells[below], cells[below + 1]
    share = (POWER - low.power) / (high.power - low.power)
    ends = np.log([[low.pairs, low.seconds], [high.pairs, high.seconds]])
    pairs, seconds = np.exp((1 - share) * ends[0] + share * ends[1])
    return float(pairs), float(seconds)


def _table(found: Mapping[str, Sequence[Cell]]) -> list[Row]:
    rows: list[Row] = []
    for name, cells in found.items():
        enough, last = needed(cells), cells[-1]
        rows.append(
            {
                "test": name,
                "n90": round(enough[0], -2) if enough else "-",
                "seconds at n90": float(f"{enough[1]:.2g}") if enough else "-",
                "last n": last.pairs,
                "power there": last.power,
                "seconds there": float(f"{last.seconds:.2g}"),
            }
        )
    return sorted(rows, key=lambda row: (_seconds(row), -float(str(row["power there"]))))


def _seconds(row: Row) -> float:
    """CPU seconds at power 0.9, infinite if it was not reached."""
    found = row["seconds at n90"]
    return found if isinstance(found, float) else math.inf


def _verdict(tables: Mapping[str, Sequence[Row]], known: Mapping[str, Subject]) -> str:
    """The quickest check here and the quickest peer, by alternative."""
    found = []
    for caption, rows in tables.items():
        ours, peers = ([row for row in rows if known[str(row["test"])].ours is mine] for mine in (True, False))
        words = [f"**{caption.split(':')[0]}**: {_words(ours[0])} here", f"{_words(peers[0])} elsewhere."]
        found.append(", ".join(words))
    return "Quickest to power 0.9 by alternative. " + " ".join(found)


def _words(row: Row) -> str:
    return f"{row['test']} ({row['seconds at n90']} s)" if math.isfinite(_seconds(row)) else "none within the seconds"


def _figure(found: Mapping[str, Mapping[str, Sequence[Cell]]], known: Mapping[str, Subject]) -> Figure:
    dashes = ("--", ":", "-.", (0, (4, 2, 1, 2, 1, 2)), (0, (1, 3)))
    places = {name: sum(other.ours is subject.ours for other in list(known.values())[:at])
              for at, (name, subject) in enumerate(known.items())}  # fmt: skip
    strokes: dict[str, dict[str, object]] = {
        name: {
            "color": PALETTE[at] if known[name].ours else MUTED,
            "linestyle": "-" if known[name].ours else dashes[at % len(dashes)],
        }
        for name, at in places.items()
    }
    figure, axes = panels(list(found), width=3.1, height=3.2)
    for plot, cells in zip(axes, found.values(), strict=True):
        for name, line in cells.items():
            at = [cell.seconds for cell in line], [cell.power for cell in line]
            plot.plot(*at, marker="o", markersize=2.5, linewidth=1.5, **strokes[name])  # type: ignore[arg-type]
        plot.set(xscale="log", ylim=(-0.03, 1.03), xlabel="CPU seconds")
        plot.axhline(POWER, color=MUTED, linewidth=0.6)
    axes[0].set_ylabel("power")
    legend(figure, strokes)
    return figure
