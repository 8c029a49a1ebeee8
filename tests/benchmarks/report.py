"""The report of a whole run: sections of tables and sentences, as Markdown and as data."""

from __future__ import annotations

import importlib
import inspect
import itertools
import os
import platform
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INTRO = (
    "One run of `make bench`, {threads} thread on {cpu}. Both sides of a ratio were timed in turn within the run, and "
    "the ratio is the median over the turns: it carries over to another machine better than the seconds, which are "
    "medians of this run. Every benchmark asserts that its answers are right; none asserts a time."
)


@dataclass
class Section:
    """The part of the report that a test module fills. Its title and first text are the module's docstring."""

    entries: list[dict[str, Any] | str] = field(default_factory=list)

    def row(self, **cells: Any) -> None:
        """A line of a table; lines with the same columns stand together. Column ``a_b`` is headed "a b"."""
        self.entries.append(cells)

    def say(self, sentence: str) -> None:
        """A paragraph."""
        self.entries.append(sentence)


@dataclass
class Report:
    """The sections by module name; ``partial`` when some of the benchmarks were left out."""

    sections: dict[str, Section] = field(default_factory=dict)
    partial: bool = False

    def markdown(self, environment: dict[str, str]) -> str:
        """The report as a reader sees it."""
        parts = ["# Benchmarks", _wrap(INTRO.format(**environment))]
        for number, (module, section) in enumerate(sorted(self.sections.items()), start=1):
            title, text = _doc(module)
            parts += [f"## {number}. {title.rstrip('.')}", text]
            for columns, group in itertools.groupby(section.entries, key=_columns):
                members: list[Any] = list(group)
                parts += [_table(columns, members)] if columns else map(_wrap, members)
        named = (f"{key} {value}" for key, value in environment.items() if key not in ("cpu", "threads"))
        return "\n\n".join([*parts, "---", _wrap("; ".join(named))]) + "\n"

    def data(self, environment: dict[str, str]) -> dict[str, Any]:
        """The same for programs."""
        sections = [
            {
                "benchmark": module.rpartition(".")[2],
                "title": _doc(module)[0],
                "rows": [entry for entry in section.entries if not isinstance(entry, str)],
            }
            for module, section in sorted(self.sections.items())
        ]
        return {"environment": environment, "sections": sections}


@dataclass(frozen=True)
class Contest:
    """Medians of the seconds of two sides, the median ratio subject : reference, and what the two returned last."""

    seconds: float
    reference_seconds: float
    ratio: float
    result: Any
    reference_result: Any


Versus = Callable[..., Contest]


def cpu() -> str:
    """The processor's model and the number of its cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def _doc(module: str) -> tuple[str, str]:
    title, _, text = (inspect.getdoc(importlib.import_module(module)) or module).partition("\n\n")
    return title, text


def _columns(entry: dict[str, Any] | str) -> tuple[str, ...]:
    return () if isinstance(entry, str) else tuple(entry)


def _wrap(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _table(columns: tuple[str, ...], rows: list[Any]) -> str:
    right = {key for key in columns if not any(isinstance(row[key], str) for row in rows)}
    lines = [
        "| " + " | ".join(_heading(key) for key in columns) + " |",
        "|" + "|".join("--:" if key in right else ":--" for key in columns) + "|",
        *("| " + " | ".join(_cell(row[key]) for key in columns) + " |" for row in rows),
    ]
    return "\n".join(lines)


def _heading(key: str) -> str:
    # A rate or a time is this run's; a ratio is not.
    return key.replace("_", " ") + (" (this run)" if key.endswith(("seconds", "per_second")) else "")


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "–" if value is None else str(value)
