"""Timing two sides in turn, and writing reports/benchmarks.md and reports/benchmarks.json after a whole run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from tests.benchmarks.report import Contest, Report, Section, Versus, cpu
from verify.report.provenance import provenance

FOLDER = Path(__file__).parent
REPORTS = FOLDER.parents[1] / "reports"
THREADS = 1
_REPORT = pytest.StashKey[Report]()


@pytest.fixture
def versus(benchmark: Any) -> Versus:
    """Time a subject, which pytest-benchmark also shows, and before each of its turns a reference."""

    def run(subject: Callable[[], Any], reference: Callable[[], Any], turns: int = 5) -> Contest:
        times: tuple[list[float], list[float]] = ([], [])
        results: list[Any] = [None, None]

        def timed(side: int, call: Callable[[], Any]) -> None:
            begun = time.perf_counter()
            results[side] = call()
            times[side].append(time.perf_counter() - begun)

        benchmark.pedantic(lambda: timed(0, subject), setup=lambda: timed(1, reference), rounds=turns)
        ratios = [mine / other for mine, other in zip(*times, strict=True)]
        return Contest(median(times[0]), median(times[1]), median(ratios), *results)

    return run


@pytest.fixture
def section(request: pytest.FixtureRequest) -> Section:
    """This module's part of the report."""
    return request.config.stash[_REPORT].sections.setdefault(request.module.__name__, Section())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(threads)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_REPORT] = Report()


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items[:1]:
        item.config.stash[_REPORT].partial = True


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the report after a run of every benchmark, and only then: a part of it would pass for the whole."""
    report = session.config.stash[_REPORT]
    named = any("::" in word for word in session.config.args)
    ran = {module.rpartition(".")[2] for module in report.sections}
    every = {path.stem for path in FOLDER.glob("test_*.py")}
    if exitstatus != 0 or named or report.partial or ran != every or session.config.getoption("benchmark_disable"):
        return
    environment = {"cpu": cpu(), "threads": str(THREADS), **provenance("make bench", 0)}
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "benchmarks.json").write_text(json.dumps(report.data(environment), indent=1) + "\n")
    (REPORTS / "benchmarks.md").write_text(report.markdown(environment))
