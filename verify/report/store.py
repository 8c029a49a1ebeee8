"""Verdicts on disk: one JSON file that the pages are made from, and made again from."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verify.errors import SubjectError
from verify.records import Counterexample, Finding, Verdict

STATUSES = ("lossless", "lossy", "inconclusive")


@dataclass(frozen=True)
class Results:
    """Everything a report is made of. ``skipped``: what was not judged and why, a sentence each."""

    verdicts: tuple[Verdict, ...]
    provenance: Mapping[str, str]
    skipped: tuple[str, ...] = ()

    @property
    def surprises(self) -> tuple[Verdict, ...]:
        """The verdicts that are not what was expected of their subject."""
        return tuple(verdict for verdict in self.verdicts if not verdict.as_expected)

    def to_dict(self) -> dict[str, Any]:
        """Plain data under four keys: ``success``, ``statistics``, ``results``, ``meta``; no wall-clock times."""
        counts = Counter(verdict.status for verdict in self.verdicts)
        results = []
        for verdict in self.verdicts:
            row = json.loads(verdict.to_json())
            del row["seconds"]
            results.append(row)
        return {
            "success": not self.surprises,
            "statistics": {status: counts[status] for status in STATUSES} | {"unexpected": len(self.surprises)},
            "results": results,
            "meta": {"schema": "specproof/1", "provenance": dict(self.provenance), "skipped": list(self.skipped)},
        }


def save(results: Results, path: Path) -> None:
    """Write the results as JSON, a verdict a line."""
    data = results.to_dict()
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in data["results"])
    text = json.dumps(data | {"results": []}, indent=1)
    path.write_text(text.replace('"results": []', f'"results": [\n{lines}\n ]', 1) + "\n", encoding="utf-8")


def load(path: Path) -> Results:
    """What ``save`` wrote. Raises SubjectError where the file is missing or is not such a file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        rows: Sequence[Mapping[str, Any]] = data["results"]
        return Results(
            verdicts=tuple(_verdict(row) for row in rows),
            provenance=dict(data["meta"]["provenance"]),
            skipped=tuple(data["meta"]["skipped"]),
        )
    except FileNotFoundError:
        raise SubjectError(f"there is no {path}; run specproof audit first, or name its folder by --output") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SubjectError(f"{path} is not as this version writes it ({error!r}); run the audit again") from None


def _verdict(row: Mapping[str, Any]) -> Verdict:
    names = {item.name for item in dataclasses.fields(Verdict)}
    values = {name: value for name, value in row.items() if name in names}
    for name in ("bias_lower", "bias_upper", "confidence"):
        # JSON has no infinities: a bound that is not finite was written as null.
        values[name] = math.nan if values[name] is None else float(values[name])
    if values.get("counterexample") is not None:
        values["counterexample"] = Counterexample(**values["counterexample"])
    values["findings"] = tuple(Finding(**finding) for finding in values.get("findings", ()))
    values["notes"] = tuple(values.get("notes", ()))
    return Verdict(**values)
