"""The report: one self-contained HTML page and its Markdown twin, made from verdicts alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from verify.records import Verdict
from verify.report.figures import excess_figure, law_figure
from verify.report.store import STATUSES, Results, save


def write_report(
    verdicts: Sequence[Verdict],
    folder: str | Path,
    *,
    provenance: Mapping[str, str],
    skipped: Iterable[str] = (),
) -> list[Path]:
    """Write verdicts.json, index.html, index.md and the figures that index.md shows; the same input, the same bytes.

    ``skipped``: what was not judged and why, a sentence each.
    """
    results = Results(tuple(verdicts), provenance, tuple(skipped))
    folder = Path(folder)
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for stale in figures.glob("*.svg"):
        stale.unlink()
    paths = [folder / "verdicts.json", folder / "index.html", folder / "index.md"]
    save(results, paths[0])
    written = titles(folder / "studies")
    paths[1].write_text(html_page(results, written), encoding="utf-8")
    paths[2].write_text(markdown_page(results, written), encoding="utf-8")
    for name, drawing in _figures(results).items():
        paths.append(figures / f"{name}.svg")
        paths[-1].write_text(drawing, encoding="utf-8")
    return paths


def html_page(results: Results, studies: Mapping[str, str] | None = None) -> str:
    """The whole report as one HTML document that loads nothing; ``studies``: titles of the studies beside it."""
    return templates().get_template("page.html.jinja").render(**_content(results), studies=studies or {})


def markdown_page(results: Results, studies: Mapping[str, str] | None = None) -> str:
    """The same report in Markdown; its figures are files in ``figures/``."""
    return templates().get_template("page.md.jinja").render(**_content(results), studies=studies or {})


def titles(folder: Path) -> dict[str, str]:
    """The titles of the studies written to a folder, by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8"))["title"] for path in sorted(folder.glob("*.json"))}


@dataclass(frozen=True)
class Row:
    """A verdict and its place in the table, from 1."""

    number: int
    verdict: Verdict

    @property
    def surprise(self) -> bool:
        """Whether the verdict is not the one expected."""
        return not self.verdict.as_expected

    @property
    def remarkable(self) -> bool:
        """Whether there is more to say than the table says."""
        verdict = self.verdict
        return bool(verdict.counterexample or verdict.needs or verdict.diagnosis or verdict.notes or self.surprise)

    @property
    def law(self) -> str:
        """The name of the figure of its counterexample."""
        return f"law-{self.number}"


def _content(results: Results) -> dict[str, Any]:
    rows = [Row(number, verdict) for number, verdict in enumerate(results.verdicts, 1)]
    cases = sorted((row for row in rows if row.remarkable), key=lambda row: (not row.surprise, row.number))
    return {
        "results": results,
        "rows": rows,
        "cases": cases,
        "open_all": len(results.verdicts) <= 3,
        "figures": _figures(results),
        "banner": banner(results),
        "allowance": allowance(results.verdicts),
        "mood": "bad" if results.surprises else "good" if _claims(results) else _mood(results.verdicts),
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
    environment.filters |= {"cell": markdown_cell, "fence": markdown_fence}
    environment.filters |= {"heads": heads, "number": number, "code": code}
    return environment


def _figures(results: Results) -> dict[str, str]:
    drawings = {"excess": excess_figure(results.verdicts)}
    for row in (Row(number, verdict) for number, verdict in enumerate(results.verdicts, 1)):
        if row.verdict.counterexample is not None:
            drawings[row.law] = law_figure(row.verdict.counterexample, row.law)
    return {name: drawing for name, drawing in drawings.items() if drawing is not None}


def banner(results: Results) -> str:
    """The whole report in one sentence."""
    verdicts = results.verdicts
    if not verdicts:
        return "Nothing was judged."
    if len(verdicts) == 1 and not _claims(results):
        (verdict,) = verdicts
        name = verdict.subject or "The function"
        return f"{name} is {verdict.status}: its bias is {bias(verdict)} ({measure(verdict)})."
    counts = [(sum(verdict.status == status for verdict in verdicts), status) for status in STATUSES]
    tally = ", ".join(f"{count} {status}" for count, status in counts if count)
    if not _claims(results):
        return f"{len(verdicts)} functions judged: {tally}."
    if not results.surprises:
        return f"{len(verdicts)} functions judged, and every verdict is as claimed or expected: {tally}."
    names = ", ".join(verdict.subject for verdict in results.surprises[:5])
    more = ", …" if len(results.surprises) > 5 else ""
    return f"{len(results.surprises)} of {len(verdicts)} verdicts are not as claimed or expected: {names}{more}."


def allowance(verdicts: Sequence[Verdict]) -> str:
    """How sure the reader may be of all verdicts together (the union bound over those that rest on samples)."""
    sampled = [verdict for verdict in verdicts if verdict.evidence not in ("exact", "enumeration")]
    if not sampled:
        return "Every verdict rests on enumeration: no false alarm is possible."
    risk = min(1.0, math.fsum(1.0 - verdict.confidence for verdict in sampled))
    if len(verdicts) == 1:
        return f"The verdict rests on samples: the probability that it is wrong is at most {risk:.2g}."
    return (
        f"{len(verdicts) - len(sampled)} of {len(verdicts)} verdicts rest on enumeration; "
        f"the probability that any other is wrong is at most {risk:.2g}."
    )


def _claims(results: Results) -> bool:
    """Whether anything was expected of anybody, so that there is something to contradict."""
    return any(verdict.expected for verdict in results.verdicts)


def _mood(verdicts: Sequence[Verdict]) -> str:
    found = {verdict.status for verdict in verdicts}
    return "bad" if "lossy" in found else "unsure" if "inconclusive" in found else "good"


def bias(verdict: Verdict) -> str:
    """The bias, or the interval that holds it, in three digits."""
    low, high = verdict.bias_lower, verdict.bias_upper
    if verdict.evidence == "exact" or low == high:
        return "0" if high == 0 else f"{high:.3g}"
    if not high < 1:  # a distance of 1 bounds nothing, and no more does one that is not a number
        return f"at least {low:.3g}" if low > 0 else "unknown"
    return f"{low:.3g} to {high:.3g}" if low > 0 else f"at most {high:.3g}"


def measure(verdict: Verdict) -> str:
    """The metric in words."""
    return re.sub(r"\btv\b", "total variation", verdict.metric)


def share(value: float | None) -> str:
    """A probability in four decimals, or a dash."""
    return "–" if value is None else f"{value:.4f}"


def heads(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """The columns of a table: the keys of its rows, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def number(value: object) -> str:
    """A cell: numbers in four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def code(text: str) -> Markup:
    """Text whose `back-ticked` words are set as code, and **starred** ones in bold."""
    plain = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", plain))


def breakable(text: str) -> Markup:
    """Text that may be broken inside names and paths, after their punctuation."""
    return Markup(re.sub(r"(?<=\w)([/_=:]+)(?=\w)", r"\1<wbr>", str(escape(text))))


def markdown_cell(text: object) -> str:
    """Any text as one line of plain Markdown, also inside a table."""
    escaped = re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", " ".join(str(text).split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_fence(code: str, language: str = "python") -> str:
    """A code block whose fence is longer than any run of back-ticks inside it."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
    return f"{ticks}{language}\n{code.rstrip()}\n{ticks}"
