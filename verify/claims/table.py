"""A published table as figures: one for each speed-up, with the acceptance, draft length and cost that go with it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from verify.errors import SubjectError

ROOT = Path(__file__).parent
NAMES = {
    "alpha": r"(?:alpha|(?:acceptance|accept|acc)(?:_rate)?)(?:_(?P<tag>\w+))?",
    "gamma": r"(?:gamma|draft_length|draft_tokens|num_draft(?:_tokens)?|num_speculative_tokens)(?:_(?P<tag>\w+))?",
    "speedup": r"(?:(?:speedup|speed_up)(?:_(?P<tag>\w+))?|(?P<batch>bs\d+))",
    "cost": r"(?:cost_ratio|cost)(?:_(?P<tag>\w+))?",
}
"""Which headings mean what; those of one row that share a tag, as ``alpha_5`` and ``speedup_5`` do, belong together."""
LACKS = {
    "alpha": "acceptance: any is possible, and the bounds are those of the highest",
    "gamma": "draft length: any is possible, and the bounds are those of the longest",
    "speedup": "speed-ups: nothing is held against the bounds",
}
"""What it means that a table has no column of a role."""
APART = {"semicolons": ";", "tabs": "\t"}
WANTED = "alpha (or acceptance), gamma (or draft_length), speedup (or bs1, bs8, ...), each with or without _TAG, cost"


@dataclass(frozen=True)
class Figure:
    """One published speed-up, or a setting without one. ``row``: its line in the file, the heading being line 1;
    ``series``: whatever tells settings apart, draft lengths aside.
    """

    row: int
    label: str
    setting: str
    series: tuple[str, ...]
    alpha: float | None
    gamma: float | None
    speedup: float | None
    cost: float | None


def shipped() -> dict[str, Path]:
    """Name -> file of the tables of speed-ups that come with the package."""
    return {path.stem: path for path in sorted((ROOT / "tables").glob("*.csv"))}


def find(name: str) -> Path:
    """The file of that path, or the shipped table of that name. Raises SubjectError where there is neither."""
    path = Path(name)
    if path.is_file():
        return path
    if name in shipped():
        return shipped()[name]
    raise SubjectError(f"no file and no shipped table {name!r}; specproof claims lists the tables, or give a CSV file")


def figures(path: Path) -> tuple[Figure, ...]:
    """The figures of a CSV file with a heading. Raises SubjectError, naming row and column, for what cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [(reader.line_num, line) for reader in [csv.reader(file)] for line in reader if any(line)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SubjectError(f"{path} is not a table of text ({error}); save it as CSV in UTF-8") from None
    if len(lines) < 2:
        raise SubjectError(f"{path} has no rows; give a CSV file with a heading and at least one row")
    heading = [cell.strip() for cell in lines[0][1]]
    for name, sign in APART.items():
        if len(heading) == 1 and sign in heading[0]:
            raise SubjectError(f"the columns of {path} are separated with {name}; separate them with commas")
    columns = _columns(heading)
    if not columns["alpha"] and not columns["gamma"]:
        raise SubjectError(
            f"{path} has no column of acceptance or draft length among {', '.join(heading)}; name them {WANTED}"
        )
    return tuple(figure for row, line in lines[1:] for figure in _row(path, row, line, heading, columns))


def remarks(path: Path) -> tuple[str, ...]:
    """What a table that ``figures`` reads does not have, what follows, and which columns were taken for labels."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        heading = [cell.strip() for cell in next(line for line in csv.reader(file) if any(line))]
    columns = _columns(heading)
    found = [f"no column of {what}" for role, what in LACKS.items() if not columns[role]]
    used = {place for tags in columns.values() for place in tags.values()}
    labels = [name for place, name in enumerate(heading) if place not in used]
    if found and labels:
        found.append(f"read as labels: {', '.join(labels)}; of figures the names are {WANTED}")
    return tuple(found)


def _columns(heading: list[str]) -> dict[str, dict[str, int]]:
    """Role -> tag -> column."""
    found: dict[str, dict[str, int]] = {role: {} for role in NAMES}
    for place, name in enumerate(heading):
        for role, pattern in NAMES.items():
            match = re.fullmatch(pattern, _plain(name))
            if match:
                parts = match.groupdict()
                tag = parts.get("tag") or parts.get("batch") or ""
                if tag in found[role]:
                    raise SubjectError(f"the columns {heading[found[role][tag]]} and {name} mean the same; keep one")
                found[role][tag] = place
    return found


def _plain(heading: str) -> str:
    """Lower case, whatever is no letter or digit an underscore."""
    return re.sub(r"\W+|_+", "_", heading.lower()).strip("_")


def _row(
    path: Path, row: int, line: list[str], heading: list[str], columns: dict[str, dict[str, int]]
) -> Iterator[Figure]:
    if len(line) != len(heading):
        raise SubjectError(f"{path}, row {row}: {len(line)} cells under {len(heading)} headings; add or drop commas")

    def cell(role: str, tag: str) -> float | None:
        place = columns[role].get(tag, columns[role].get(""))
        return None if place is None else _number(line[place], role, f"{path}, row {row}, column {heading[place]}")

    used = {place for tags in columns.values() for place in tags.values()}
    texts = tuple(cell for place, cell in enumerate(line) if place not in used)
    tags = list(columns["speedup"] or {**columns["alpha"], **columns["gamma"]})
    for tag in tags:
        found = {role: cell(role, tag) for role in NAMES}
        if columns["speedup"] and found["speedup"] is None:
            continue
        setting = tag if len(tags) > 1 else ""
        yield Figure(row, " ".join(filter(None, texts)), setting, (*texts, tag), **found)


def _number(text: str, role: str, where: str) -> float | None:
    """The number in a cell; None in an empty one. ``26 %`` and ``2.33x`` are understood."""
    text = text.strip()
    if text in ("", "-", "–", "n/a"):
        return None
    bare = text.rstrip("%x× ")
    try:
        value = float(bare) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        raise SubjectError(f"{where}: {text!r} is not a number; mend it, or leave the cell empty") from None
    valid = {
        "alpha": ("a probability from 0 to 1", 0.0 <= value <= 1.0),
        "gamma": ("a whole number from 1", 1.0 <= value < 1e6 and value == int(value)),
        "speedup": ("a positive number", 0.0 < value < 1e9),
        "cost": ("a number from 0", 0.0 <= value < 1e9),
    }
    wanted, holds = valid[role]
    if not holds:
        raise SubjectError(f"{where}: {text!r} is not {wanted}; mend it, or leave the cell empty")
    return value
