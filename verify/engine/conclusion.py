"""From findings to a verdict, and the sentences that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from verify.checks import Check
from verify.engine.bounds import Shown, rows_to_certify, rows_to_reject
from verify.engine.reference_defects import equivalents
from verify.records import Finding, Verdict

KNOWN = ("ks", "sliced", "mmd")


@dataclass(frozen=True)
class Evidence:
    """``tested``: findings at the levels they were tested at, of the largest sample that all checks saw; ``confirmed``:
    those of fresh samples that convict, ``doubted`` the names of checks that were not confirmed; ``certificates``,
    smallest first; ``shown``: the bias on fresh rows; ``columns`` whose distribution functions were compared; ``sees``:
    what the checks that everybody knows can see, and what they cannot.
    """

    kind: str
    tested: tuple[Finding, ...]
    confirmed: tuple[Finding, ...] = ()
    doubted: tuple[str, ...] = ()
    certificates: tuple[Finding, ...] = ()
    shown: Shown | None = None
    columns: int = 1
    sees: tuple[str, ...] = ()


def conclude(
    evidence: Evidence, *, epsilon: float, delta: float, subject: str, scope: str, seconds: float, metric: str | None
) -> Verdict:
    """``lossy`` where something is confirmed; else ``lossless`` where the smallest certificate is at most ``epsilon``;
    else ``inconclusive``, with the rows that would decide either way. A lower bound is one on the total variation.
    """
    best = evidence.certificates[0] if evidence.certificates else None
    common = Verdict(
        status="lossy",
        bias_lower=0.0,
        bias_upper=1.0,
        metric="tv",
        evidence=evidence.kind,
        confidence=1 - delta,
        findings=(*evidence.tested, *evidence.confirmed),
        subject=subject,
        scope=scope,
        seconds=seconds,
    )
    if evidence.confirmed:
        return _lossy(common, evidence)
    upper = 1.0 if best is None or best.bound is None else best.bound
    named = best.metric if best is not None else metric or "tv"
    notes = [_limits(named), _seen(evidence.tested, evidence.columns), *evidence.sees]
    if evidence.doubted:
        notes.append(f"{', '.join(evidence.doubted)} rejected once, and was not confirmed on fresh rows")
    common = _with(common, "lossless", upper, named, notes)
    if upper <= epsilon:
        return common
    return _with(common, "inconclusive", upper, named, notes, _needs(evidence, best, epsilon, delta))


def _with(verdict: Verdict, status: str, upper: float, metric: str, notes: Sequence[str], needs: str = "") -> Verdict:
    return replace(verdict, status=status, bias_upper=upper, metric=metric, notes=tuple(notes), needs=needs)


def _lossy(common: Verdict, evidence: Evidence) -> Verdict:
    worst = min(evidence.confirmed, key=lambda item: item.p_value or 0.0)
    notes = [f"{worst.check} rejects on fresh rows as it did before: p = {worst.p_value:.2g} ({worst.note})"]
    if evidence.shown is not None and evidence.shown.lower > 0:
        notes.insert(0, f"certified on rows that did not choose it: {evidence.shown.words}")
        return replace(common, bias_lower=evidence.shown.lower, notes=tuple(notes))
    return replace(common, notes=(*notes, "the departure is confirmed, but no single event certifies its size"))


def _limits(metric: str) -> str:
    if metric == "tv":
        return "the bound is on the total variation"
    what = {"ks": "Kolmogorov-Smirnov distance along the tested columns", "mmd": "kernel mean distance"}
    return (
        f"the bound is on the {what.get(metric, metric)}; it does not bound the total variation, which no number of "
        "samples does for a continuous law"
    )


def _seen(tested: Sequence[Finding], columns: int) -> str:
    sizes = [
        f"{item.check} {item.smallest:.2g} ({item.metric})"
        for item in tested
        if item.smallest is not None and item.metric
    ]
    same = equivalents(tested, columns)
    text = "defects seen nine times in ten: " + ", ".join(dict.fromkeys(sizes))
    return text + (f"; that is {', '.join(same)}" if same else "")


def sees(check: Check, finding: Finding) -> str:
    """A sentence for the distances that everybody knows; empty for another check."""
    if finding.check not in KNOWN or finding.bound is None:
        return ""
    return (
        f"{finding.check}: {finding.statistic:.3g}, at most {finding.bound:.3g}; it sees {check.claim.against}, and is "
        f"blind to {check.claim.blind_to}"
    )


def _needs(evidence: Evidence, best: Finding | None, epsilon: float, delta: float) -> str:
    parts = []
    if best is not None:
        samples = 2 if evidence.kind == "two samples" else 1
        rows = rows_to_certify(best, epsilon, delta, evidence.columns, samples)
        parts.append(f"{rows} rows certify {best.metric} <= {epsilon:g} if it is exact")
    else:
        parts.append("no check certifies a bound in this metric")
    against = rows_to_reject(evidence.tested)
    if against is None:
        parts.append("nothing seen departs by more than chance, so there is nothing to reject yet")
    else:
        worst, rows = against
        parts.append(f"{rows} rows reject by {worst.check} if the departure seen (p = {worst.p_value:.2g}) is real")
    return "; ".join(parts)
