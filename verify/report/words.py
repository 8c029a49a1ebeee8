"""The report's words: verdicts and numbers as a reader wants them, in HTML and in Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from verify.records import Verdict
from verify.report.store import STATUSES, Results


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


def sampled(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Those that rest on samples, and so may be wrong by chance."""
    return [verdict for verdict in verdicts if verdict.evidence not in ("exact", "enumeration")]


def allowance(verdicts: Sequence[Verdict]) -> str:
    """How sure the reader may be of all verdicts together (the union bound over those that rest on samples)."""
    if not (chancy := sampled(verdicts)):
        return "Every verdict rests on enumeration: no false alarm is possible."
    if len(verdicts) == 1:
        return f"The verdict rests on samples: the probability that it is wrong is at most {risk(verdicts):.2g}."
    return (
        f"{len(verdicts) - len(chancy)} of {len(verdicts)} verdicts rest on enumeration; "
        f"the probability that any other is wrong is at most {risk(verdicts):.2g}."
    )


def risk(verdicts: Sequence[Verdict]) -> float:
    """At most so probable is it that any verdict that rests on samples is wrong."""
    return min(1.0, math.fsum(1.0 - verdict.confidence for verdict in sampled(verdicts)))


def _claims(results: Results) -> bool:
    """Whether anything was expected of anybody, so that there is something to contradict."""
    return any(verdict.expected for verdict in results.verdicts)


def mood(results: Results) -> str:
    """The colour of the opening: good, bad or unsure."""
    if _claims(results):
        return "bad" if results.surprises else "good"
    found = {verdict.status for verdict in results.verdicts}
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
    """A cell: numbers in four digits; a dash where there is none."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 and math.isfinite(value) else f"{value:.4g}".replace("nan", "–")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value is None else str(value)


def code(text: str) -> Markup:
    """Text whose `back-ticked` words are set as code, and **starred** ones in bold."""
    plain = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", unbroken(plain)))


def unbroken(text: str) -> str:
    """Numbers such as 3e-05 with a hyphen at which no line ends."""
    return re.sub(r"(?<=\d)e-(?=\d)", "e\u2011", text)


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
