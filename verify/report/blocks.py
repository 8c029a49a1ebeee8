"""What a chapter of the report is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from verify.report.written import Rows, Written


@dataclass(frozen=True)
class Picture:
    """A drawing and the sentence below it."""

    svg: str
    caption: str
    kind: str = "picture"

    @property
    def narrow(self) -> bool:
        """Whether two of its kind have room side by side."""
        return self._size[0] < 570

    @property
    def tall(self) -> bool:
        """Whether it would fill the screen at full width."""
        return self._size[1] > 0.75 * self._size[0]

    @property
    def _size(self) -> tuple[float, float]:
        found = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"', self.svg)
        return (float(found[1]), float(found[2])) if found else (500.0, 300.0)


@dataclass(frozen=True)
class Matrix:
    """Names down, checks across; cells are `seen`, `blind` or `unasked`. ``passes``: to be seen by none is right."""

    caption: str
    checks: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    passes: bool
    kind: str = "matrix"


@dataclass(frozen=True)
class Sheet:
    """Tables that belong together; ``folded`` unless they are short."""

    caption: str
    tables: Sequence[Rows]
    folded: bool = True
    kind: str = "sheet"


@dataclass(frozen=True)
class Prose:
    """Paragraphs that unfold; ``study``: whose they are, if it has a page of its own."""

    caption: str
    paragraphs: Sequence[str]
    study: str = ""
    kind: str = "prose"


Block = Picture | Matrix | Sheet | Prose


@dataclass(frozen=True, eq=False)
class Chapter:
    """A chapter of the page. ``missing``: the commands that would make what is not there."""

    anchor: str
    title: str
    lead: str
    blocks: Sequence[Block]
    studies: Sequence[Written] = ()
    missing: Sequence[str] = ()
