"""Studies as they lie in a folder: read again from their files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

from verify.report.svg import themed

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Written:
    """A study on disk. ``figures``: SVG text by caption, in order; ``text`` in paragraphs."""

    name: str
    title: str
    text: str
    tables: Mapping[str, Rows]
    figures: Mapping[str, str]
    provenance: Mapping[str, str]

    @property
    def paragraphs(self) -> list[str]:
        """The text, paragraph by paragraph."""
        return [part for part in self.text.strip().split("\n\n") if part.strip()]


def written(folder: Path) -> dict[str, Written]:
    """Every study of a folder, by name: data from NAME.json, text from NAME.md, drawings from NAME-1.svg and so on."""
    return {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}


def _read(path: Path) -> Written:
    data = json.loads(path.read_text(encoding="utf-8"))
    page = path.with_suffix(".md")
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    text = re.split(r"\n(?:!\[|## )", text, maxsplit=1)[0].partition("\n")[2]
    figures = {}
    for place in range(1, 1 + len(list(path.parent.glob(f"{path.stem}-*.svg")))):
        drawing = path.with_name(f"{path.stem}-{place}.svg")
        if drawing.is_file():
            svg = themed(drawing.read_text(encoding="utf-8"))
            label = re.search(r'aria-label="([^"]*)"', svg)
            figures[unescape(label[1]) if label else drawing.stem] = svg
    return Written(path.stem, data["title"], text, data["tables"], figures, data["provenance"])
