"""The report: one self-contained HTML page and its Markdown twin, made from verdicts alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import jinja2

from verify.records import Verdict
from verify.report.blocks import Picture
from verify.report.chapters import chapters, origins
from verify.report.figures import excess_figure, gap_figure
from verify.report.groups import Row, groups, outcomes, separation, tiles
from verify.report.store import Results, save
from verify.report.words import (
    allowance,
    banner,
    bias,
    breakable,
    code,
    heads,
    markdown_cell,
    markdown_fence,
    measure,
    mood,
    number,
    risk,
    share,
)
from verify.report.written import written


def write_report(
    verdicts: Sequence[Verdict],
    folder: str | Path,
    *,
    provenance: Mapping[str, str],
    skipped: Iterable[str] = (),
) -> list[Path]:
    """Write verdicts.json, index.html, index.md, the figures of index.md, and the pages of the studies in the folder.

    The same input, the same bytes. ``skipped``: what was not judged and why, a sentence each.
    """
    results = Results(tuple(verdicts), provenance, tuple(skipped))
    folder = Path(folder)
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for stale in figures.glob("*.svg"):
        stale.unlink()
    paths = [folder / "verdicts.json", folder / "index.html", folder / "index.md"]
    save(results, paths[0])
    studies = written(folder / "studies")
    parts = chapters(studies, folder)
    content = _content(results) | {
        "chapters": parts,
        "studies": studies,
        "origins": origins(provenance, studies, folder),
        "notebooks": notebooks(folder / "notebooks"),
    }
    drawings = content["figures"] | {
        f"claims-{place}": block.svg
        for part in parts
        if part.anchor == "claims"
        for place, block in enumerate(part.blocks)
        if isinstance(block, Picture)
    }
    for path in paths[1:]:
        path.write_text(_page(f"page{path.suffix}.jinja", content), encoding="utf-8")
    for name, drawing in drawings.items():
        paths.append(figures / f"{name}.svg")
        paths[-1].write_text(drawing, encoding="utf-8")
    for name, study in studies.items():  # in today's style, whenever they were computed
        paths.append(folder / "studies" / f"{name}.html")
        page = study_page(study, name, study.figures, study.provenance, ".html")
        paths[-1].write_text(page, encoding="utf-8")
    return paths


def html_page(results: Results) -> str:
    """Verdicts alone as one HTML document that loads nothing, their data in it."""
    return _page("page.html.jinja", _content(results))


def markdown_page(results: Results) -> str:
    """The same in Markdown; its figures are files in ``figures/``."""
    return _page("page.md.jinja", _content(results))


def study_page(study: Any, name: str, drawings: Mapping[str, str], provenance: Mapping[str, str], kind: str) -> str:
    """The page of a study, computed just now or read from its files; ``kind`` is .html or .md."""
    content = {"study": study, "name": name, "drawings": drawings, "provenance": provenance}
    return _page(f"study{kind}.jinja", content).rstrip() + "\n"


def notebooks(folder: Path) -> dict[str, str]:
    """The titles of the notebooks' pages in a folder, by file name."""
    pages = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.html"))}
    found = {name: re.search(r"<title>(.*?)</title>", page, flags=re.S) for name, page in pages.items()}
    return {name: unescape(title[1]) if title else name for name, title in found.items()}


def _page(template: str, content: Mapping[str, Any]) -> str:
    return templates().get_template(template).render(content)


def _content(results: Results) -> dict[str, Any]:
    rows = [Row(number, verdict) for number, verdict in enumerate(results.verdicts, 1)]
    cases = sorted((row for row in rows if row.remarkable), key=lambda row: (not row.surprise, row.number))
    return {
        "results": results,
        "rows": rows,
        "groups": groups(rows),
        "cases": cases,
        "few": len(results.verdicts) <= 3,
        "figures": _figures(results),
        "banner": banner(results),
        "allowance": allowance(results.verdicts),
        "separation": separation(results.verdicts),
        "tiles": tiles(results, risk(results.verdicts)) if len(rows) > 3 else [],
        "mood": mood(results),
        "chapters": [],
        "studies": {},
        "origins": (),
        "notebooks": None,
        "data": results.to_dict(),
    }


@cache
def templates() -> jinja2.Environment:
    """The pages' templates, and the filters they use."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"bias": bias, "measure": measure, "share": share, "breakable": breakable}
    environment.filters |= {"cell": markdown_cell, "fence": markdown_fence, "outcomes": outcomes}
    environment.filters |= {"heads": heads, "number": number, "code": code, "picture": Picture}
    return environment


def _figures(results: Results) -> dict[str, str]:
    drawings = {"gap": gap_figure(results.verdicts), "excess": excess_figure(results.verdicts)}
    return {name: drawing for name, drawing in drawings.items() if drawing is not None}
