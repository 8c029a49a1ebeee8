"""Every rule for Gaussian drafts: its output law by quadrature, whole vectors by coupling, acceptance and cost."""

from __future__ import annotations

from collections.abc import Sequence

from verify.studies.gaussian_rules import drawings
from verify.studies.gaussian_rules.subjects import EXACT, Found, Subject, find, subjects
from verify.studies.gaussian_rules.words import text
from verify.study import Row, Study

DISTANCES = (0.1, 1.0, 3.0, 8.0)
DIMS = (1, 4, 16)
ROWS = {"quick": (10_000, 100_000), "thorough": (1_000_000, 1_000_000)}
"""Rounds in each dimension, and in the last one for a rule that has no quadrature."""


def run(budget: str = "quick") -> Study:
    """Every rule of the catalogue that serves Gaussian laws, at every distance; then the planted defects at one."""
    rows, sampled = ROWS[budget]
    known = subjects()
    found = look(known, DISTANCES, rows, sampled)
    planted = look(subjects((2,), "saboteurs"), (1.0,), min(rows, 100_000), 0, len(found))
    tables = {"The law of the first token": [law(item) for item in found]}
    tables["Acceptance"] = [acceptance(item) for item in found]
    tables["Draws of a residual, and time"] = [cost(item) for item in found]
    if planted:
        tables["Planted defects, means 1 sigma apart"] = [law(item) for item in planted]
    figures = {
        "Probability that one of K siblings is kept, in closed form, with the most that a lossless rule can keep "
        "(dashed) and what one draft is kept with (dotted). `gaussian_transport` lies on the cap.": drawings.siblings(
            known
        ),
        "How often a residual is drawn in one round, in 16 dimensions. Thin lines: the geometric law that quadrature "
        "predicts for thinning. A rule that inverts or moves draws once or never.": drawings.tails(
            found, DISTANCES[:3]
        ),
    }
    return Study("Rules for Gaussian drafts", text(found, planted), tables, figures)


def look(known: Sequence[Subject], distances: Sequence[float], rows: int, sampled: int, seed: int = 0) -> list[Found]:
    """``find`` for every subject and distance, each with a seed of its own."""
    cases = [(item, distance) for item in known for distance in distances]
    counts = dict.fromkeys(DIMS, rows)
    return [find(item, distance, counts, sampled, seed + turn) for turn, (item, distance) in enumerate(cases)]


# --- tables ----------------------------------------------------------------------------------------------------------
def law(item: Found) -> Row:
    """What is known of the law of the first token."""
    line = item.line
    return {
        "rule": item.subject.name,
        "drafts": item.subject.drafts,
        "delta": item.distance,
        "claims": "exact" if item.subject.rule.claim.exact else "lossy",
        "evidence": item.evidence,
        "TV on the line": "" if line is None else f"{line.tv:.1e}" if line.tv < EXACT else line.tv,
        "bias by formula": "" if item.formula is None else item.formula,
        **{f"unlike the lift, d={dim}": f"{count} of {item.rows[dim]:,}" for dim, count in item.mismatches.items()},
        **{f"TV <=, d={dim}": item.bound(dim) if item.bound(dim) < 1 else "" for dim in item.mismatches},
        **{f"DKW <=, d={dim}": item.sampled_bound(dim) for dim in item.mismatches},
        "bias": item.finding,
    }


def acceptance(item: Found) -> Row:
    """How often a draft was kept, over all dimensions, against the closed form, quadrature and the cap."""
    expected, line = item.expected, item.line
    return {
        "rule": item.subject.name,
        "drafts": item.subject.drafts,
        "delta": item.distance,
        "rounds": f"{item.total:,}",
        "measured": item.measured,
        "expected": "" if expected is None else expected,
        "standard errors": "" if item.z is None else round(item.z, 2),
        "quadrature less closed form": "" if line is None or expected is None else f"{line.kept - expected:.1e}",
        "cap": item.cap,
        "share of the cap": item.measured / item.cap,
    }


def cost(item: Found) -> Row:
    """How often a residual was drawn, 0 where none was needed, and the time of 1e5 rounds in 16 dimensions."""
    predicted = item.draws()
    return {
        "rule": item.subject.name,
        "drafts": item.subject.drafts,
        "delta": item.distance,
        "mean draws": float(item.work.mean()),
        "predicted mean": "" if predicted is None else predicted[0],
        "variance": float(item.work.var()),
        "predicted variance": "" if predicted is None else predicted[1] - predicted[0] ** 2,
        "most in one round": int(item.work.max()),
        "seconds for 1e5 rounds": round(item.seconds, 3),
    }
