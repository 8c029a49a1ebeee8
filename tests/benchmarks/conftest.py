"""Timing two sides in turn, and the report of a whole run: reports/benchmarks.md and reports/benchmarks.json."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from verify.report.provenance import provenance

FOLDER = Path(__file__).parent
REPORTS = FOLDER.parents[1] / "reports"

INTRO = """# Benchmarks

One run of `make bench`, {threads} thread{s} on {cpu}. Both sides of a ratio were timed in turn within the run, and the
ratio is the median over the turns, so it carries over to another machine better than the seconds do: those are the
medians of this run. Every benchmark asserts that its answers are right; none asserts a time.
"""


@dataclass
class Report:
    """What the tests found: for each of their modules, rows of tables and sentences, in order."""

    sections: dict[str, list[dict[str, Any] | str]] = field(default_factory=dict)
    partial: bool = False

    def markdown(self, environment: dict[str, str]) -> str:
        threads = int(environment["threads"])
        parts = [INTRO.format(threads=threads, s="" if threads == 1 else "s", cpu=environment["cpu"])]
        for number, (module, entries) in enumerate(sorted(self.sections.items()), start=1):
            title, _, text = _doc(module).partition("\n\n")
            parts.append(f"## {number}. {title.rstrip('.')}\n" + (f"\n{text}\n" if text else ""))
            for columns, group in itertools.groupby(entries, key=lambda e: "" if isinstance(e, str) else tuple(e)):
                members: list[Any] = list(group)
                parts.append("".join(f"{entry}\n" for entry in members) if columns == "" else _table(members))
        named = (f"{key} {value}" for key, value in environment.items() if key not in ("cpu", "threads"))
        parts.append(f"---\n{'; '.join(named)}\n")
        return "\n".join(parts)

    def data(self, environment: dict[str, str]) -> dict[str, Any]:
        found = []
        for module, entries in sorted(self.sections.items()):
            rows = [entry for entry in entries if not isinstance(entry, str)]
            found.append({"benchmark": module.rpartition(".")[2], "title": _doc(module).split("\n\n")[0], "rows": rows})
        return {"environment": environment, "sections": found}


@dataclass
class Section:
    """The part of the report that a test module fills."""

    entries: list[dict[str, Any] | str]

    def row(self, **cells: Any) -> None:
        """A line of a table; lines with the same columns stand together. Column ``a_b`` is headed "a b"."""
        self.entries.append(cells)

    def say(self, sentence: str) -> None:
        self.entries.append(sentence)


@dataclass(frozen=True)
class Contest:
    """Medians of the seconds of two sides, the median ratio subject : reference, and what the two returned last."""

    seconds: float
    reference_seconds: float
    ratio: float
    result: Any
    reference_result: Any


Versus = Callable[..., Contest]


@pytest.fixture
def versus(benchmark: Any) -> Versus:
    """Time a subject, which pytest-benchmark also shows, and before each of its rounds a reference."""

    def run(subject: Callable[[], Any], reference: Callable[[], Any], turns: int = 5) -> Contest:
        times: tuple[list[float], list[float]] = ([], [])
        results: list[Any] = [None, None]

        def timed(side: int, call: Callable[[], Any]) -> None:
            begun = time.perf_counter()
            results[side] = call()
            times[side].append(time.perf_counter() - begun)

        benchmark.pedantic(lambda: timed(0, subject), setup=lambda: timed(1, reference), rounds=turns)
        ratios = [mine / other for mine, other in zip(*times, strict=False)]
        return Contest(median(times[0]), median(times[1]), median(ratios), *results)

    return run


@pytest.fixture
def section(request: pytest.FixtureRequest) -> Section:
    report = request.config.stash[_REPORT]
    return Section(report.sections.setdefault(request.module.__name__, []))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


_REPORT = pytest.StashKey[Report]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_REPORT] = Report()


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items[:1]:
        item.config.stash[_REPORT].partial = True


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the report after a run of every benchmark, and only then: a part of it would pass for the whole."""
    report = session.config.stash[_REPORT]
    ran = {module.rpartition(".")[2] for module in report.sections}
    every = {path.stem for path in FOLDER.glob("test_*.py")}
    if exitstatus != 0 or report.partial or ran != every or session.config.getoption("benchmark_disable"):
        return
    known = provenance("make bench", 0)
    environment = {"cpu": _cpu(), "threads": "1", **known}
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "benchmarks.json").write_text(json.dumps(report.data(environment), indent=1) + "\n")
    (REPORTS / "benchmarks.md").write_text(report.markdown(environment))


def _doc(module: str) -> str:
    return inspect.getdoc(importlib.import_module(module)) or module


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def _table(rows: list[dict[str, Any]]) -> str:
    columns = list(rows[0])
    right = {key for key in columns if all(isinstance(row[key], (int, float)) for row in rows)}
    lines = [
        "| " + " | ".join(key.replace("_", " ") for key in columns) + " |",
        "|" + "|".join("--:" if key in right else ":--" for key in columns) + "|",
        *("| " + " | ".join(_cell(row[key]) for key in columns) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
