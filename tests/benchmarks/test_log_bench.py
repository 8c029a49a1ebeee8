"""Logs: records per second, and memory.

A synthetic log is written and audited by one process and by two, as JSON lines, which is what `specproof audit-log`
does with a file of any size. The reference is Python's own `json.loads` on each line, and nothing else. Seconds for ten
million records are those measured, less the time that two idle processes take to start, in proportion.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.benchmarks.report import Section, Versus
from tests.logs_by_hand import lines, world
from verify.logs import scan as scanning
from verify.logs.tally import LogTally, Settings

RECORDS, MANY = 500_000, 10_000_000
PEAK = Path("/proc/self/status")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A clean log with every optional field but the time, of at least RECORDS records."""
    path, done, seed = tmp_path_factory.mktemp("logs") / "log.jsonl", 0, 0
    with path.open("w") as file:
        while done < RECORDS:
            batch = lines(world().columns(50_000, seed))
            file.write("\n".join(batch) + "\n")
            done, seed = done + len(batch), seed + 1
    return path, done


def resident() -> float | None:
    """Megabytes that this process has held at most, since it began; None where the system does not tell."""
    if not PEAK.exists():
        return None
    line = next(line for line in PEAK.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def plain(path: Path) -> int:
    with path.open() as file:
        return sum(1 for line in file if json.loads(line))


@pytest.mark.parametrize("workers", [1, 2])
def test_log(
    workers: int, log: tuple[Path, int], versus: Versus, section: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, size = log
    monkeypatch.setattr(scanning, "SMALL", 0)
    before = resident()
    run = versus(lambda: scanning.scan(path, Settings(), workers)[0], lambda: plain(path), turns=3)
    grown = None if before is None else (resident() or 0.0) - before
    found: LogTally = run.result
    assert found.n == size == run.reference_result and found.malformed == 0
    started = 0.0
    if workers > 1:
        begun = time.perf_counter()
        small = path.with_name("small.jsonl")
        small.write_text("\n".join(lines(world().columns(10, 0))) + "\n")
        scanning.scan(small, Settings(), workers)
        started = time.perf_counter() - begun
    steady = max(run.seconds - started, 0.0) / size
    section.row(
        processes=workers,
        records=size,
        time_over_json=run.ratio,
        records_per_second=size / run.seconds,
        ten_million_in_seconds=started + MANY * steady,
        megabytes_added=grown,
        audit_seconds=run.seconds,
        json_seconds=run.reference_seconds,
    )
