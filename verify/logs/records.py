"""The records of a log, and how lines and columns become arrays of them.

A record is one drafted token, as a JSON object on a line of its own or a row of a Parquet file:

============  ============================================================================================
``draft``     identifies the drafted block: a string or a whole number; records of one block stand together
``position``  place of the token in its block, from 0
``claimed``   probability of the drafted token under the drafter, as the sampler used it
``target``    probability of the same token under the target, as the sampler used it
``accepted``  true or false; null for a token that was drafted but never examined, after a rejection
``overlap``   optional: the sum over the vocabulary of min(claimed law, target law)
``context``   optional: identifies the prefix and the settings of sampling; equal contexts have equal laws
``token``     optional: identifies the drafted token
``time``      optional: a number that grows; the file is taken to be in order either way
============  ============================================================================================

Probabilities in full precision: what is rounded to 0 counts as 0. Other fields are left alone.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NUMBERS = ("claimed", "target", "accepted", "position", "overlap", "time")
NAMES = ("draft", "context", "token")
REQUIRED = ("draft", "position", "claimed", "target", "accepted")
SLACK = 1e-4
"""A probability may exceed 1 by this: those of half precision do not sum to 1."""
WRONG = {
    **dict.fromkeys(("claimed", "target", "overlap"), "no probability"),
    "position": "no whole number from 0",
    "accepted": "not true, false or null",
    "time": "no number",
}
"""What is said of a field that cannot be."""
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class Records:
    """Columns (n,) in order of the file; NaN where an optional number is missing, and for accepted: null.

    ``names``: hashes of the identifiers that every record of the batch has. ``malformed``: lines that are no record;
    ``example``: the first of them, and why it is none.
    """

    numbers: dict[str, np.ndarray]
    names: dict[str, np.ndarray] = field(default_factory=dict)
    malformed: int = 0
    example: str = ""

    def __len__(self) -> int:
        return len(self.numbers["claimed"])

    def __getitem__(self, rows: np.ndarray) -> Records:
        numbers, names = ({key: column[rows] for key, column in part.items()} for part in (self.numbers, self.names))
        return Records(numbers, names, self.malformed, self.example)


def parse(text: str) -> Records:
    """The records of whole lines. A line that is no record is counted, and never an error; empty lines are nothing."""
    rows: list[dict[str, Any]] = []
    lines: list[str] = []
    bad: list[str] = []
    for line in text.split("\n"):
        try:
            row, end = _scan(line, 0)
            row["accepted"], row["position"], row["draft"]
            if end == len(line) or not line[end:].strip():
                rows.append(row)
                lines.append(line)
                continue
        except (StopIteration, ValueError, KeyError, TypeError, IndexError, RecursionError):
            if not line.strip():
                continue
            try:  # an indented line, or one whose first blank is not its first sign
                row = json.loads(line)
                if all(key in row for key in REQUIRED):
                    rows.append(row)
                    lines.append(line)
                    continue
            except (ValueError, TypeError, RecursionError):
                pass
        bad.append(line)
    try:
        numbers = _columns(rows)
    except (ValueError, TypeError, OverflowError):
        fits = [_numeric(row) for row in rows]
        bad += [line for line, fit in zip(lines, fits, strict=True) if not fit]
        rows = [row for row, fit in zip(rows, fits, strict=True) if fit]
        lines = [line for line, fit in zip(lines, fits, strict=True) if fit]
        numbers = _columns(rows)
    names = {key: _hashed([row.get(key) for row in rows]) for key in NAMES if all(key in row for row in rows)}
    found = Records(numbers, names)
    good = valid(found)
    if not good.all():
        bad += [lines[place] for place in np.flatnonzero(~good)]
        found = found[good]
    return Records(found.numbers, found.names, len(bad), f"{bad[0][:80]!r}, {fault(bad[0])}" if bad else "")


def from_columns(columns: Mapping[str, Iterable[Any]]) -> Records:
    """The records of a table's columns, such as a batch of a Parquet file. Raises ValueError for one of no numbers."""
    size = len(list(columns["draft"]))
    absent = [None] * size
    numbers = {key: np.array(columns.get(key, absent), dtype=float) for key in NUMBERS}
    names = {key: _hashed(columns[key]) for key in NAMES if key in columns}
    found = Records(numbers, names)
    good = valid(found)
    if good.all():
        return found
    first = {key: column[np.flatnonzero(~good)[0]] for key, column in numbers.items()}
    return Records(found[good].numbers, found[good].names, int((~good).sum()), f"a row {_wrong_number(first)}")


def fault(line: str) -> str:
    """Why a line is no record, in a phrase."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return "which is no JSON"
    if not isinstance(row, dict):
        return "which is no JSON object"
    for key in REQUIRED:
        if key not in row:
            near = difflib.get_close_matches(key, list(row), 1)
            return f"without {key}" + (f" (there is {near[0]!r})" if near else "")
    return _wrong_number(row)


def _wrong_number(row: Mapping[str, Any]) -> str:
    right: dict[str, Any] = {**dict.fromkeys(NUMBERS), "claimed": 1, "target": 1, "position": 0}
    for key, wrong in WRONG.items():
        alone = right | {key: row.get(key)}
        if not _numeric(alone) or not valid(Records(_columns([alone]))).all():
            return f"whose {key} is {wrong}: {str(row.get(key))[:20]}"
    return "which is no record"


def valid(found: Records) -> np.ndarray:
    """Which rows (n,) are records: probabilities are such, positions whole, answers yes, no or null."""
    column = found.numbers
    good = np.ones(len(found), dtype=bool)
    for key in ("claimed", "target", "overlap"):
        good &= (column[key] >= 0) & (column[key] <= 1 + SLACK) | (np.isnan(column[key]) & (key == "overlap"))
    place, answer = column["position"], column["accepted"]
    with np.errstate(invalid="ignore"):
        good &= (place >= 0) & (place == np.floor(place)) & np.isfinite(place)
    return np.asarray(good & ((answer == 0) | (answer == 1) | np.isnan(answer)))


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The numbers (n,) of each name. Raises ValueError, TypeError or OverflowError where one is none."""
    found = {key: np.array([row.get(key) for row in rows], dtype=float) for key in NUMBERS}
    if any(column.ndim > 1 for column in found.values()):
        raise ValueError("a list where a number belongs")
    return found


def _numeric(row: Mapping[str, Any]) -> bool:
    try:
        _columns([row])
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def _hashed(column: Iterable[Any]) -> np.ndarray:
    """Hashes (n,): equal for equal identifiers within one process, which is as far as they are compared."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "iu":
        return column.astype(np.int64)
    return np.array([hash(item if item.__hash__ else str(item)) for item in column], dtype=np.int64)
