"""The chapters of the report: for each a sentence, its figures and tables, and the studies that it rests on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from verify.report import leads
from verify.report.blocks import Block, Chapter, Matrix, Picture, Prose, Sheet
from verify.report.claims import audits, claims_figure, implies, table, verdict
from verify.report.leads import SEES, Studies
from verify.report.written import Rows, Written

LIVE = ("mode", "verdict", "bias (tv)", "runs enumerated", "note")  # the study's own page has room for the others
LONGEST = 36  # rows of a matrix before it goes on beside itself


def chapters(studies: Studies, folder: Path) -> list[Chapter]:
    """Every chapter in the order of the page; what no chapter shows comes last, as `Other studies`."""
    found = [
        _chapter("engine", "How sure the engine is", studies, leads.engine, ("engine_trial", "power_per_second")),
        _chapter("ladder", "The ladder: bias against acceptance", studies, leads.ladder, ("ladder",)),
        _matrices(studies),
        _chapter("jacobi", "Jacobi decoding", studies, leads.jacobi, ("jacobi", "jacobi_conditions")),
        _chapter("images", "Images", studies, leads.images, ("images",), first="Images of both models"),
        _claims(),
        _live(studies),
        _benchmarks(folder / "benchmarks.json"),
    ]
    shown = {study.name for chapter in found for study in chapter.studies}
    others = [study for name, study in studies.items() if name not in shown]
    return [*found, Chapter("studies", "Other studies", "", (), others)] if others else found


def _chapter(
    anchor: str,
    title: str,
    studies: Studies,
    words: Callable[[Studies], str],
    names: Sequence[str],
    first: str = "",
) -> Chapter:
    """All figures of some studies, that whose caption begins with ``first`` before the others, and their texts."""
    there = [studies[name] for name in names if name in studies]
    pictures = [Picture(svg, caption) for study in there for caption, svg in study.figures.items()]
    pictures.sort(key=lambda picture: not (first and picture.caption.startswith(first)))
    blocks: list[Block] = [*pictures, *_details(there)]
    return Chapter(anchor, title, leads.lead(words, studies), blocks, there, _missing(names, studies))


def _details(studies: Sequence[Written]) -> list[Prose]:
    return [Prose(study.title, study.paragraphs, study.name) for study in studies]


def _missing(names: Sequence[str], studies: Studies) -> list[str]:
    return [f"specproof study {name}" for name in names if name not in studies]


def _matrices(studies: Studies) -> Chapter:
    names = {"kill_matrix": "tokens", "continuous_kill_matrix": "continuous tokens"}
    there = {name: studies[name] for name in names if name in studies}
    blocks: list[Block] = []
    for start, title, passes in (("Saboteur", "Planted defects of", False), ("Control", "Lossless rules on", True)):
        for name, study in there.items():
            for caption, rows in study.tables.items():
                if caption.startswith(f"{start} by check"):
                    blocks += _matrix(f"{title} {names[name]}: {len(rows)}", rows, passes)
    blocks += _details(list(there.values()))
    lead = leads.lead(leads.matrices, studies)
    title = "Kill and pass matrices"
    return Chapter("matrices", title, lead, blocks, list(there.values()), _missing(list(names), studies))


def _matrix(caption: str, rows: Rows, passes: bool) -> list[Matrix]:
    subject, *checks = rows[0]
    kinds = {SEES: "seen", "": "blind"}
    cells = [(str(row[subject]), [kinds.get(str(row[check]), "unasked") for check in checks]) for row in rows]
    half = -(-len(cells) // 2) if len(cells) > LONGEST else len(cells)
    parts = [cells[:half], cells[half:]] if half < len(cells) else [cells]
    return [Matrix(caption if part is parts[0] else "continued", checks, part, passes) for part in parts]


@cache
def _claims() -> Chapter:
    blocks: list[Block] = []
    found = audits()
    for name, item in found.items():
        blocks.append(Picture(claims_figure(name, item), f"`{name}`: {verdict(item)}"))
    blocks += [Sheet(f"{name}: every speed-up", [table(item)]) for name, item in found.items()]
    fits = [f"`{name}`: {line}." for name, item in found.items() for line in item.summary()]
    blocks.append(Prose("What this implies, and what it does not", [implies(), *fits]))
    over = sum(item.beyond_rollback for item in found.values())
    total = sum(len(item.checked) for item in found.values())
    lead = (
        f"Acceptance, draft length and speed-up bound one another, whatever the sampler does. Of {total} published "
        f"speed-ups in the tables that ship, {over} are faster than the acceptance beside them allows with rollback. "
        "That convicts nobody of a bias: it says that time, acceptance or rollback is not what it seems."
    )
    return Chapter("claims", "Published speed-ups", lead, blocks)


def _live(studies: Studies) -> Chapter:
    there = [studies["live_audit"]] if "live_audit" in studies else []
    blocks: list[Block] = []
    for study in there:
        for rows in study.tables.values():
            short = [{key: row.get(key, "") for key in LIVE} for row in rows]
            blocks.append(Sheet(study.title, [short], folded=False))
    blocks += _details(there)
    title = there[0].title if there else "A live audit of transformers"
    return Chapter(
        "live", title, leads.lead(leads.live, studies), blocks, there, _missing(["live_audit"], studies)
    )  # fmt: skip


def _benchmarks(path: Path) -> Chapter:
    title = "Benchmarks"
    if not path.is_file():
        return Chapter("benchmarks", title, "", (), missing=["make bench"])
    data = json.loads(path.read_text(encoding="utf-8"))
    blocks = [Sheet(section["title"].rstrip("."), _alike(section["rows"])) for section in data["sections"]]
    made = data["environment"]
    lead = (
        f"{len(data['sections'])} benchmarks of one run, {made.get('threads', 1)} thread on {made.get('cpu', 'CPU')}. "
        "Ratios compare two sides timed in turn within the run, and carry over to other machines better than seconds."
    )
    return Chapter("benchmarks", title, lead, blocks)


def _alike(rows: Rows) -> list[list[Mapping[str, Any]]]:
    """Rows with the same columns stand together."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row), []).append({key.replace("_", " "): value for key, value in row.items()})
    return list(groups.values())


def origins(audit: Mapping[str, str], studies: Studies, folder: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Where each part comes from, its command, commit, seed, versions and device: what all share, and what differs."""
    parts = [dict(audit), *(dict(study.provenance) for study in studies.values())]
    bench = folder / "benchmarks.json"
    if bench.is_file():
        parts.append(json.loads(bench.read_text(encoding="utf-8"))["environment"])
    keys = [key for key in dict.fromkeys(key for part in parts for key in part) if key not in ("cpu", "threads")]
    rows = [{key: str(part.get(key, "")) for key in keys} for part in parts]
    shared = {key: rows[0][key] for key in keys if key != "command" and len({row[key] for row in rows}) == 1}
    return shared, [{key: value for key, value in row.items() if key not in shared} for row in rows]
