"""What the sums of a log are tested for, under one error budget."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.special import logsumexp
from scipy.stats import pearson3

from verify.checks.battery import holm
from verify.logs.tally import CELLS, GROUPS, STAKES, VIOLATIONS, WEIGHTS, LogTally, Settings
from verify.records import Finding

LEAST = 10.0
"""Sums of a smaller variance are not tested: the approximation of their law is not good enough."""
DRAFTS = "drafts: "
COINS = "coins: "
EXCESS = "excess acceptance"


def tails(sums: np.ndarray, step: float = 0.0) -> np.ndarray:
    """Two-sided p-values (m,) of sums, variances and third cumulants (m, 3); NaN where the variance is below ``LEAST``.

    The Pearson law of type III with those three cumulants, as the sum of many bounded steps of a martingale of known
    variance is normal but for its skewness. ``step``: of the lattice that it lives on, for continuity.
    """
    total, variance, third = sums.T
    tested = variance >= LEAST
    spread = np.sqrt(np.where(tested, variance, 1.0))
    size = np.maximum(np.abs(total) - step / 2, 0.0) / spread
    skew = np.sign(total) * third / spread**3
    return np.where(tested, np.minimum(1.0, 2 * pearson3.sf(size, skew)), np.nan)


def two_sided_wealth(total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Logarithms (m,) of e-values against mean 0, for sums and sums of squares (m,) of steps within [-1, 1].

    The mean over stakes of both signs of exp(s S - psi(|s|) Q), psi(s) = -ln(1 - s) - s: a supermartingale from 1, by
    Fan, Grama and Liu (2015, Lemma 4.1), so that P(e >= 1 / alpha) <= alpha at every n.
    """
    stakes = np.concatenate((STAKES, -STAKES))
    cost = -np.log1p(-np.abs(stakes)) - np.abs(stakes)
    return np.asarray(logsumexp(np.outer(total, stakes) - np.outer(squares, cost), axis=1)) - math.log(len(stakes))


def findings(tally: LogTally, alpha: float, settings: Settings) -> tuple[Finding, ...]:
    """All tests, each at the level at which Holm's procedure puts it: together they err with probability ``alpha``.

    Coins: martingale sums with predictable weights, and cells, Bonferroni. Drafts: E[target / claimed] <= 1 given the
    past, for drafts of the claimed law, whatever laws these are, so that prod (1 + s (ratio - 1)) is a bet nobody can
    win: e-values, valid at every n. With the overlap logged, min(1, target / claimed) - overlap has mean zero; with
    contexts and tokens, so has (the same token again) - claimed. Excess: lemma TV(output, target) >= P(accepted) -
    overlap, for any rule, at an exact bound (Hoeffding 1963, as martingale Azuma 1967).
    """
    tested = [
        *_coins(tally, settings),
        *_ratios(tally, settings),
        *_overlaps(tally),
        *_repeats(tally),
        *_violations(tally, settings),
    ]
    return holm(tested, alpha)


def _finding(check: str, statistic: float, value: float, n: float, note: str, metric: str = "") -> Finding:
    return Finding("", "log", check, float(statistic), float(value), 0.0, int(n), 0, note, metric)


def _coins(tally: LogTally, settings: Settings) -> Iterator[Finding]:
    coins = tally.coins
    if settings.token_rule:
        for name, value, (total, _, _) in zip(WEIGHTS, tails(coins[: len(WEIGHTS)]), coins, strict=False):
            if not math.isnan(value):
                yield _finding(
                    COINS + name, total / tally.n, value, tally.n, "mean of w (accepted - min(1, ratio))", "acceptance"
                )
        for place, group in enumerate(GROUPS):
            part = coins[len(WEIGHTS) + place * CELLS :][:CELLS]
            values = tails(part, step=1.0)
            tested = int((~np.isnan(values)).sum())
            if tested:
                worst = int(np.nanargmin(values))
                n, accepted, wanted = tally.cells[place, worst]
                note = f"{cell_name(place, worst)}: {accepted / n:.4f} accepted of {n:.0f}, {wanted / n:.4f} expected"
                yield _finding(
                    COINS + group, (accepted - wanted) / n, min(1.0, tested * values[worst]), n, note, "acceptance"
                )


def _ratios(tally: LogTally, settings: Settings) -> Iterator[Finding]:
    drafts, total, squares = tally.ratios
    if drafts:
        mean = total / drafts
        error = math.sqrt(max(squares / drafts - mean**2, 0.0) / drafts)
        wealth = logsumexp(tally.wealth, axis=1) - math.log(len(STAKES))
        note = f"target / claimed averages {mean:.4f} +- {error:.4f}; at most 1 for drafts of the claimed law"
        yield _finding(DRAFTS + "mean ratio", mean, _fair(wealth[0]), drafts, note, "mean ratio")
        worst = int(wealth[1:-1].argmax())
        together = float(logsumexp(wealth[1:-1])) - math.log(CELLS)
        yield _finding(
            DRAFTS + "mean ratio by position",
            wealth[worst + 1],
            _fair(together),
            drafts,
            cell_name(1, worst),
            "log wealth",
        )
        if settings.vocab:
            note = f"1 / (claimed {settings.vocab}) averages more than 1: tokens come that the claimed law hardly has"
            yield _finding(DRAFTS + "inverse of the claimed", wealth[-1], _fair(wealth[-1]), drafts, note, "log wealth")


def _overlaps(tally: LogTally) -> Iterator[Finding]:
    known = tally.overlaps[0, 0]
    if known:
        n, gap, square, overlap = tally.overlaps.T
        wealth = two_sided_wealth(gap, square)
        note = f"min(1, ratio) averages {(gap[0] + overlap[0]) / known:.4f}, the overlap {overlap[0] / known:.4f}"
        yield _finding(DRAFTS + "overlap", gap[0] / known, _fair(wealth[0]), known, note, "acceptance")
        for place, group in enumerate(GROUPS[1:], start=1):
            own = slice(1 + (place - 1) * CELLS, 1 + place * CELLS)
            worst = int(wealth[own].argmax())
            together = float(logsumexp(wealth[own])) - math.log(CELLS)
            size = gap[own][worst] / max(n[own][worst], 1)
            yield _finding(
                DRAFTS + "overlap by " + group, size, _fair(together), known, cell_name(place, worst), "acceptance"
            )
        mean = tally.excess / known
        value = math.exp(-2 * max(mean, 0.0) ** 2 * known)
        note = f"accepts {mean + overlap[0] / known:.4f}, the overlap is {overlap[0] / known:.4f}"
        yield _finding(EXCESS, mean, value, known, note, "tv")


def _repeats(tally: LogTally) -> Iterator[Finding]:
    pairs, total, variance, third = tally.repeats
    (value,) = tails(np.array([[total, variance, third]]), step=1.0)
    if not math.isnan(value):
        note = f"of {pairs:.0f} drafts in a context met before, the same token again: share beyond the claimed one"
        yield _finding(DRAFTS + "repeats", total / pairs, value, pairs, note, "match")


def _violations(tally: LogTally, settings: Settings) -> Iterator[Finding]:
    for name, hits in zip(VIOLATIONS, tally.violations, strict=True):
        if hits and (settings.token_rule or not name.startswith("rejected")):
            yield _finding(
                name, hits, 0.0, tally.n, f"{hits} times, first: {dict(tally.examples.lines).get(name, '')}", "records"
            )


def _fair(wealth: float) -> float:
    """The p-value of an e-value given by its logarithm."""
    return math.exp(-max(float(wealth), 0.0))


def cell_name(group: int, place: int) -> str:
    """What to call a cell of a group."""
    if group == 0:
        return f"acceptance {place / CELLS:.3g} to {(place + 1) / CELLS:.3g}"
    if group == 1:
        return f"position {place}" + (" and later" if place == CELLS - 1 else "")
    return f"part {place + 1} of {CELLS} of the file"
