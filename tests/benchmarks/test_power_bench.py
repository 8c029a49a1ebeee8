"""Power per CPU second, against scipy, hyppo and plain MMD.

Two samples, and a test of their equality at level 1e-3. Run here are the tests on one sample of a size at which a mean
that is off by 0.02 standard deviations is seen, and for plain MMD, whose time grows with the square of the rows, on as
many rows as take it a second or so. The seconds to see a difference nine times in ten, and a dash where 1.8 seconds do
not suffice, are those of `specproof study power_per_second`, in reports/studies, which is not run again here.
"""

from __future__ import annotations

import json

import pytest

from distributions.tape import GeneratorTape
from tests.benchmarks.conftest import REPORTS
from tests.benchmarks.report import Section, Versus
from verify.studies.power_per_second.alternatives import mean_shift
from verify.studies.power_per_second.compared import subjects

ALPHA, ROWS = 1e-3, 1 << 18
FEW = 2048


@pytest.mark.parametrize(
    ("name", "rows"), [("scipy cramervonmises", ROWS), ("scipy ks_2samp", ROWS), ("MMD, wild bootstrap", FEW)]
)
def test_on_one_sample(name: str, rows: int, versus: Versus, section: Section) -> None:
    tests, _ = subjects()
    sample, truth = mean_shift(ROWS, GeneratorTape(0))
    same = GeneratorTape(1).normal("again", (ROWS, 1))
    few, other = sample[:rows], truth[:rows]
    run = versus(lambda: tests["sliced"].test(sample, truth), lambda: tests[name].test(few, other), turns=3)
    assert run.result < ALPHA < tests["sliced"].test(same, truth)  # the truth against itself; its seed is fixed
    assert (run.reference_result < ALPHA) == (rows == ROWS)
    section.row(
        test=name,
        rows=rows,
        p_value=run.reference_result,
        p_value_of_ours=run.result,
        our_time_on_262_144_rows_over_its_own=run.ratio,
        its_seconds=run.reference_seconds,
    )
    if rows == FEW:
        summarise(section)


def summarise(section: Section) -> None:
    """The study's table, one line a test."""
    file = REPORTS / "studies" / "power_per_second.json"
    if not file.exists():
        section.say("The study has not been run on this machine.")
        return
    study = json.loads(file.read_text())
    ours = {name for name, subject in subjects()[0].items() if subject.ours}
    found: dict[str, dict[str, float | None]] = {}
    for caption, rows in study["tables"].items():
        for row in rows:
            seconds = row["seconds at n90"]
            line = found.setdefault(row["test"], {})
            line[caption.partition(":")[0]] = None if isinstance(seconds, str) else seconds
    section.say(f"Seconds to power 0.9, of the study as run at commit {study['provenance']['commit']}:")
    for name, line in sorted(found.items(), key=lambda item: item[0] not in ours):
        section.row(test=name, whose="ours" if name in ours else "others'", **_columns(line))


def _columns(line: dict[str, float | None]) -> dict[str, float | None]:
    return {f"seconds_for_the_{name.replace(' ', '_')}": value for name, value in line.items()}
