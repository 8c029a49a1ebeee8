"""What the findings on a log come to: a verdict, a bound on the bias, and how the coins are bent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from verify.logs.findings import COINS, DRAFTS, EXCESS, findings
from verify.logs.tally import STEEP, VIOLATIONS, LogTally, Settings
from verify.records import Finding, Verdict

COARSE = 0.02
"""A log that would miss this much acceptance too many decides nothing."""
LEAST = math.log(10) / COARSE
"""Nor does one with fewer records: even of coins that are all certain one in fifty may be wrong unseen."""
SPOILED = 0.01
"""Nor does one with this share of malformed lines, which may be those that matter."""
NEAR = 0.15
"""Scales and exponents farther than this from 1 are not told: one step of least squares does not reach them."""
BLIND = (
    "a log of probabilities shows neither the replacements nor the bonus tokens, nor a drafter and a target that are "
    "wrong together; what it shows is how drafts and coins relate to the numbers logged"
)


def excess(tally: LogTally, delta: float, drafts_as_claimed: bool = True) -> float:
    """A lower bound, at confidence 1 - ``delta``, on the mean over examined tokens of TV(output, target).

    TV(o, p) >= P(accepted) - overlap, and the overlap is logged, or E[min(1, ratio)] for drafts of the claimed law.
    Hoeffding's bound for steps of range 1 and 2. Nothing follows (0.0) where the drafts are not of the claimed law.
    """
    if not drafts_as_claimed or not tally.n:
        return 0.0
    known, total = tally.overlaps[0, 0], tally.cells[1].sum(0)
    bounds, level = [0.0], math.log(2 / delta)
    if known:
        bounds.append(tally.excess / known - math.sqrt(level / (2 * known)))
    if total[0]:
        bounds.append((total[1] - total[2]) / total[0] - math.sqrt(2 * level / total[0]))
    return float(max(bounds))


def bend(tally: LogTally) -> tuple[float, float, float, float] | None:
    """(c, its error, e, its error): coins behave like c ratio^e, for small departures; None where few coins tell.

    One step of weighted least squares from (1, 1): A - a = (c - 1) a + (e - 1) a log a, of variance a (1 - a).
    """
    information = np.array([[tally.coins[1, 1], tally.cross], [tally.cross, tally.coins[2, 1]]])
    if tally.coins[1, 1] < 100 or np.linalg.cond(information) > 1e6:
        return None
    covariance = np.linalg.inv(information)
    step = covariance @ tally.coins[1:3, 0]
    errors = np.sqrt(np.diag(covariance))
    return float(1 + step[0]), float(errors[0]), float(1 + step[1]), float(errors[1])


def judge(
    tally: LogTally, subject: str, alpha: float = 0.01, settings: Settings | None = None, interrupted: bool = False
) -> Verdict:
    """``consistent``, ``faulty`` or ``inconclusive``: a clean log is called faulty with probability at most ``alpha``.

    ``bias_lower``: see ``excess``; no log bounds a bias from above, so that ``bias_upper`` is 1.
    """
    settings = settings or Settings()
    tested = findings(tally, alpha, settings)
    wrong = [item for item in tested if item.rejects]
    misdrawn = any(item.check.startswith((DRAFTS, "drafted")) for item in wrong)
    total, accepted, expected = tally.cells[1].sum(0)
    spread = math.sqrt(tally.coins[0, 1] if settings.token_rule else max(total, 1.0) / 4)
    # The level of one of some thirty tests, and nine chances in ten to see it.
    radius = (norm.isf(alpha / 60) + norm.isf(0.1)) * spread / max(tally.n, 1) if tally.n else math.inf
    lines = tally.n + tally.unexamined + tally.malformed
    notes = [BLIND]
    if not settings.token_rule:
        notes.append("coins were not held against min(1, target / claimed), as --rule any asks")
    if not tally.overlaps[0, 0]:
        notes.append("no overlaps are logged: drafts of a wider law than claimed may pass, narrower ones do not")
    if tally.malformed:
        first = dict(tally.examples.lines).get("malformed", "")
        notes.append(f"{tally.malformed} of {lines} lines are no records and were left out, the first: {first}")
    if interrupted:
        notes.append("interrupted: this is what was known by then")
    if misdrawn:
        notes.append(
            "drafts are not of the claimed law, or records are missing: no bias follows from the acceptance alone"
        )
    needs = ""
    if not wrong and tally.malformed > SPOILED * lines:
        needs = "a log in which less than one line in a hundred is malformed"
    elif not wrong and (not radius <= COARSE or tally.n < LEAST):
        enough = max(tally.n, 1000) * min((radius / COARSE) ** 2, 1e4) if tally.n else 0.0
        needs = f"about {math.ceil(max(enough, LEAST)):,} examined records"
    elif not wrong and interrupted:
        needs = "the rest of the file"
    return Verdict(
        status="faulty" if wrong else "inconclusive" if needs else "consistent",
        bias_lower=max(0.0, excess(tally, alpha, not misdrawn)),
        bias_upper=1.0,
        metric="tv",
        evidence="log",
        confidence=1 - alpha,
        acceptance=accepted / total if total else None,
        overlap=_overlap(tally),
        diagnosis=_diagnosis(tally, wrong, accepted - expected),
        needs=needs,
        findings=tested,
        subject=subject,
        scope=f"{tally.n:,} examined records of {tally.blocks:,} drafts, {tally.unexamined:,} drafted and not examined",
        notes=tuple(notes),
        expected="",
    )


def _overlap(tally: LogTally) -> float | None:
    """The mean overlap as logged, else as the mean of min(1, ratio)."""
    known, total = tally.overlaps[0], tally.cells[1].sum(0)
    return float(known[3] / known[0]) if known[0] else float(total[2] / total[0]) if total[0] else None


def _diagnosis(tally: LogTally, wrong: Sequence[Finding], gained: float) -> str:
    """What is wrong, in the order in which to mend it: records, drafts, coins."""
    names = {item.check for item in wrong}
    parts = [f"{item.check}, {item.note}" for item in wrong if item.check in VIOLATIONS]
    drafts = {DRAFTS + name for name in ("mean ratio", "overlap", "repeats", "inverse of the claimed")}
    parts += [f"{item.check}: {item.note}" for item in wrong if item.check in drafts]
    if any(name.startswith(COINS) for name in names):
        rate = gained / max(tally.n, 1)
        text = f"coins: accepts {abs(rate):.4f} {'more' if rate > 0 else 'less'} often than min(1, target / claimed)"
        found = bend(tally)
        if found is not None and abs(found[0] - 1) < NEAR and abs(found[2] - 1) < NEAR:
            scale, error, power, other = found
            text += f", below {STEEP} like {scale:.4f} +- {error:.4f} times ratio^({power:.4f} +- {other:.4f})"
        parts.append(text)
    parts += [f"{item.check}: {item.note}" for item in wrong if item.check == EXCESS]
    return "; ".join(parts)
