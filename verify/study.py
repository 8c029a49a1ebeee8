"""Studies: tables and figures about many rules at once, computed and written to the reports folder."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from verify.errors import SubjectError

Row = Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Study:
    """What a study found: ``text`` in paragraphs, ``tables`` of rows by caption, ``figures`` by caption."""

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
    """``NAME.html`` and ``NAME.md`` to read, ``NAME.json`` with the tables as data, and an SVG for each figure."""
    from verify.report.figures import drawing
    from verify.report.pages import study_page

    folder.mkdir(parents=True, exist_ok=True)
    figures = enumerate(study.figures.items(), 1)
    drawings = {caption: drawing(figure, f"{name}-{place}", caption) for place, (caption, figure) in figures}
    paths = [folder / f"{name}.{kind}" for kind in ("html", "md", "json")]
    for path in paths[:2]:
        path.write_text(study_page(study, name, drawings, provenance, path.suffix), encoding="utf-8")
    tables = {caption: [dict(row) for row in rows] for caption, rows in study.tables.items()}
    meta = {"title": study.title, "provenance": dict(provenance), "tables": tables}
    paths[2].write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    for place, picture in enumerate(drawings.values(), 1):  # the page in Markdown shows these files
        paths.append(folder / f"{name}-{place}.svg")
        paths[-1].write_text(picture, encoding="utf-8")
    return paths
