"""Studies: tables and figures about many rules at once, computed and written to the reports folder."""

from __future__ import annotations

import importlib
import io
import json
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from verify.errors import SubjectError

Row = Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Study:
    """What a study found: ``text`` in Markdown, ``tables`` of rows by caption, ``figures`` by caption."""

    title: str
    text: str
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)


def studies() -> dict[str, Callable[[str], Study]]:
    """Every study by its file's name: ``run(budget)``, with budget ``quick`` (a minute or so) or ``thorough``."""
    package = importlib.import_module("verify.studies")
    names = sorted(entry.name for entry in pkgutil.iter_modules(package.__path__))
    return {name: importlib.import_module(f"{package.__name__}.{name}").run for name in names}


def chosen(name: str) -> Callable[[str], Study]:
    """The study of that name. Raises SubjectError where there is none."""
    known = studies()
    if name not in known:
        raise SubjectError(f"there is no study {name!r}; choose one of {', '.join(known)}")
    return known[name]


def write(study: Study, name: str, folder: Path, provenance: Mapping[str, str]) -> list[Path]:
    """``folder/NAME.md`` to read, ``NAME.json`` with the tables as data, and an SVG for each figure."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# {study.title}", study.text.strip()]
    written: list[Path] = []
    for place, (caption, figure) in enumerate(study.figures.items(), 1):
        path = folder / f"{name}-{place}.svg"
        path.write_text(_svg(figure), encoding="utf-8")
        written.append(path)
        parts.append(f"![{caption}]({path.name})\n\n*{caption}*")
    parts += [f"## {caption}\n\n{_table(rows)}" for caption, rows in study.tables.items()]
    parts.append("---\n" + ", ".join(f"{key} {value}" for key, value in provenance.items()))
    page, data = folder / f"{name}.md", folder / f"{name}.json"
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    tables = {caption: [dict(row) for row in rows] for caption, rows in study.tables.items()}
    meta = {"title": study.title, "provenance": dict(provenance), "tables": tables}
    data.write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    return [page, data, *written]


def _svg(figure: Figure) -> str:
    """The figure as SVG that is the same whenever it is drawn again."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "specproof", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    return text.getvalue()


def _table(rows: Sequence[Row]) -> str:
    """A Markdown table; the columns are the keys of the rows, in order of appearance."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(_cell(row.get(head, "")) for head in heads) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")
