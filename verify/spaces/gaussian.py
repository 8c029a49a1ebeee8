"""Judging a third-party sampler of continuous tokens on pairs of Gaussian laws, as a black box."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

from verify.checks.battery import stamp
from verify.errors import SubjectError
from verify.foreign.followed import NotCoupled
from verify.foreign.plain import isolated
from verify.records import Finding, Verdict
from verify.spaces.gaussian_checks import edge_checks, family, pair_checks
from verify.spaces.gaussian_coupling import Coupled, couple
from verify.spaces.gaussian_example import best, counterexample
from verify.spaces.gaussian_pairs import Pair, pairs
from verify.spaces.gaussian_rows import (
    SMALL_CALLS,
    Rows,
    Sampler,
    Subject,
    adapt,
    call_sizes,
    seconds_per_row,
)
from verify.spaces.gaussian_witnesses import EDGES, Pools, pool_witness, pools, witnesses
from verify.statistics.witness import Bias, Witness, measure

FIRST, SECOND = 1e-3, 1e-3
"""Family-wise levels of discovery, and of confirmation on fresh rows; a false alarm has their product."""
DELTA = 1e-6
"""One minus the confidence of every certified bound."""
WIDE = 0.05
"""A bound on KS above this decides nothing."""
ENOUGH = 10_240
"""Rows with which an exact sampler's bound stays below that: 0.025 + 2.2 / sqrt n with all but certainty."""
SHARE = 0.3
"""Of the seconds of the first stage: what the coupling may take besides."""
FINE = 1e-4
"""A bound for which the verdict says how many rows it takes."""


@dataclass(frozen=True)
class Budget:
    """``rows`` for each pair of laws, and the ``seconds`` that the calls of the first stage may take in all."""

    rows: int
    seconds: float


BUDGETS = {"quick": Budget(65_536, 10.0), "thorough": Budget(655_360, 100.0)}


def judge_gaussian(
    fn: Sampler, *, dim: int = 1, covariance: str = "equal", budget: str | Budget = "quick", seed: int = 0
) -> Verdict:
    """Whether ``fn(draft_value, draft, target)``, given (rows, dim) values of ``draft``, returns rows of ``target``.

    Several pairs of laws, each with many rows in calls of 1 to 4096. On each pair: non-finite or repeated outputs;
    acceptance above the overlap (TV >= P(output = draft) - overlap); the probability integral transform of the output
    in the frame of the mean difference, its radii included, by Kolmogorov-Smirnov and chi-square at two resolutions;
    products of coordinates; dependence between the rows of a call. Holm's procedure at 1e-3 on all findings, then
    again on fresh rows for those it rejected: a false alarm has probability at most 1e-6.

    What survives is run once more with its torch draws answered from a tape, beside the exact rule of the catalogue
    that agrees with it on most rows (``verify.spaces.gaussian_coupling``).

    ``lossy``: ``bias_lower`` is a certified lower bound on TV, from an event chosen on the first rows and counted on
    fresh ones. ``lossless`` by ``coupling``: ``bias_upper`` bounds TV on every pair, in any dimension, because outputs
    agree with the exact rule's row by row. ``lossless`` by ``known law``, where no rule agrees or the draws cannot be
    followed: ``bias_upper`` bounds the Kolmogorov-Smirnov distance along the tested directions; no number of samples
    bounds TV for continuous laws. ``inconclusive``: that bound exceeds 0.05. Raises SubjectError for an option that is
    not offered, and where ``fn`` raises or returns anything but a (rows, dim) tensor of floats.
    """
    began = time.perf_counter()
    limits = _limits(dim, covariance, budget)
    name = getattr(fn, "__name__", type(fn).__name__)
    offered = pairs(dim, covariance)
    with isolated():
        subject = adapt(fn, offered[0], _seed(seed, 0, 0))
        chosen, count = _plan(offered, limits, *seconds_per_row(subject, offered[0], _seed(seed, 0, 1)))
        # A pair that is much slower than the pilot run said is cut short.
        subject = replace(subject, patience=2 * limits.seconds / len(chosen))
        first, undefined = _first_rows(subject, chosen, count, seed)
        together = pools(first)
        groups = [*(pair_checks(rows) for rows in first), edge_checks(together)]
        findings = family(groups, FIRST, name, seed)
        suspects = [item for item in findings if item.rejects]
        confirmed, biases = _confirm(subject, first, together, suspects, count, name, seed) if suspects else ([], [])
        lossy = any(item.rejects for item in confirmed) or not all(rows.finite for rows in first)
        hasty = replace(subject, patience=limits.seconds / 8)
        told = _diagnosis(first, confirmed, seed) if lossy else ""
        example = counterexample(hasty, biases, covariance, count, DELTA, _seed(seed, 3, 0)) if lossy else None
        beside = None if lossy else _beside(subject, [rows.pair for rows in first], count, limits, _seed(seed, 5, 0))
    most = max(len(rows.call) for rows in first)
    least = min(len(rows.call) for rows in first)
    scope = (
        f"dim {dim}, covariance {covariance}, {subject.dtype}; {len(chosen)} of {len(offered)} pairs of Gaussian laws, "
        f"{most if most == least else f'{least} to {most}'} rows each, in calls of 1 to {max(call_sizes(count))}"
    )
    common = Verdict(
        status="lossy",
        bias_lower=0.0,
        bias_upper=1.0,
        metric="tv",
        evidence="known law",
        confidence=1 - DELTA,
        acceptance=sum(float(rows.accepted.double().mean()) for rows in first) / len(first),
        overlap=sum(rows.pair.overlap for rows in first) / len(first),
        counterexample=example,
        diagnosis=told,
        findings=(*findings, *confirmed),
        subject=name,
        scope=scope,
        seconds=time.perf_counter() - began,
    )
    verdict = _lossy(common, biases) if beside is None else _passed(common, findings, suspects, least)
    verdict = verdict if beside is None else _coupled(verdict, beside, name, seed)
    if undefined:
        verdict = replace(verdict, scope=verdict.scope + "; laws that differ", notes=(*verdict.notes, undefined))
    return verdict


def _first_rows(subject: Subject, chosen: tuple[Pair, ...], count: int, seed: int) -> tuple[list[Rows], str]:
    """The rows of every pair; and, if the function is undefined where the two laws are one, a note in place of those.

    A coupling that divides by the distance of the means is exact wherever there is one: its scope is smaller, and
    its verdict says so, but that is no bias.
    """
    first: list[Rows] = []
    undefined = ""
    for index, pair in enumerate(chosen):
        equal = pair.overlap > 1 - 1e-12 and len(chosen) > 1
        try:
            rows = subject.run(pair, call_sizes(count), _seed(seed, 1, index))
        except SubjectError as error:
            if not equal:
                raise
            undefined = f"where draft and target are the same law {error}"
            continue
        if equal and not rows.finite:
            undefined = "where draft and target are the same law the function returns NaN or infinity; guard that case"
            continue
        first.append(rows)
    return first, undefined


def _limits(dim: int, covariance: str, budget: str | Budget) -> Budget:
    if not isinstance(dim, int) or dim < 1:
        raise SubjectError(f"dim is {dim!r}; give a whole number of dimensions, 1 or more")
    if covariance not in ("equal", "any"):
        raise SubjectError(f"covariance is {covariance!r}; choose 'equal' or 'any'")
    if isinstance(budget, Budget):
        return budget
    if budget not in BUDGETS:
        raise SubjectError(f"budget is {budget!r}; choose {' or '.join(map(repr, BUDGETS))}")
    return BUDGETS[budget]


def _seed(seed: int, stage: int, index: int) -> int:
    return 1000 * seed + 100 * stage + index


def _plan(offered: tuple[Pair, ...], limits: Budget, call: float, row: float) -> tuple[tuple[Pair, ...], int]:
    """The pairs and rows that the seconds allow, at seconds a ``call`` and a ``row``: first fewer rows, then fewer
    pairs, and only then too few rows.
    """
    row += 3e-7 * (offered[0].dim + 2)  # what the checks themselves cost
    steps = [(limits.rows >> halvings, len(offered)) for halvings in range(8) if limits.rows >> halvings > ENOUGH]
    steps += [(min(ENOUGH, limits.rows), count) for count in range(len(offered), 2, -1)]
    steps += [(rows, 3) for rows in (4096, 1024, 256, 64) if rows < limits.rows]
    for rows, count in steps:
        if count * (call * len(call_sizes(rows)) + row * rows) <= limits.seconds:
            break
    return offered[:count], rows


def _confirm(
    subject: Subject,
    first: list[Rows],
    together: Pools,
    suspects: list[Finding],
    count: int,
    name: str,
    seed: int,
) -> tuple[list[Finding], list[Bias[Any]]]:
    """The checks that rejected, on fresh rows; and the events that those rows chose, counted on the fresh ones."""
    rejected = {rows: {item.check for item in suspects if item.scenario == rows.pair.name} for rows in first}
    if any(item.check == "row_dependence" for item in suspects):
        # Rows that depend on each other in one problem are not to be counted as independent in another.
        rejected = {rows: checks | {"row_dependence"} if checks else checks for rows, checks in rejected.items()}
    worst = sorted((rows for rows in first if rejected[rows]), key=lambda rows: -_apparent(rows, rejected[rows]))[:3]
    groups: list[list[Finding]] = []
    events: list[tuple[Witness[Any], Any]] = []
    for rows in worst:
        more = 2 if min(item.p_value or 0.0 for item in suspects if item.scenario == rows.pair.name) > 1e-12 else 1
        fresh = subject.run(rows.pair, call_sizes(more * count), _seed(seed, 2, first.index(rows)))
        groups.append([item for item in pair_checks(fresh) if item.check in rejected[rows] or not fresh.finite])
        chosen = witnesses(rows, rejected[rows])
        # Whether an output is finite was asked before any row was drawn, so the first rows count as well.
        events += [(event, fresh) for event in chosen] + ([] if rows.finite else [(chosen[-1], rows)])
    if not worst:
        sizes = SMALL_CALLS * 96
        again = pools([subject.run(rows.pair, sizes, _seed(seed, 2, index)) for index, rows in enumerate(first)])
        wanted = {(item.scenario, item.check) for item in suspects}
        groups.append([item for item in edge_checks(again) if (item.scenario, item.check) in wanted])
        events += [(pool_witness(together, where), again) for where in sorted({where for where, _ in wanted})]
    return family(groups, SECOND, name, seed), measure(events, DELTA)


def _diagnosis(first: list[Rows], confirmed: list[Finding], seed: int) -> str:
    """The known defect whose rows these could be."""
    from verify.diagnosis.nearest import UNKNOWN  # only a wrong law pays for loading these
    from verify.spaces.gaussian_diagnosis import diagnose_gaussian

    if any(item.check == "row_dependence" and item.rejects for item in confirmed):
        return f"{UNKNOWN}: the rows of a call depend on one another, and those of every known rule do not"
    # Far from the seeds of the drafts: the rules draw theirs from tapes of the same kind.
    return diagnose_gaussian(first, 10**9 + _seed(seed, 4, 0))


def _apparent(rows: Rows, rejected: set[str]) -> float:
    """The largest excess of an event on the rows that chose it: good enough to rank by."""
    counted = measure([(event, rows) for event in witnesses(rows, rejected)], DELTA)
    return max((bias.found - bias.witness.mass for bias in counted), default=0.0)


def _lossy(common: Verdict, biases: list[Bias[Any]]) -> Verdict:
    shown = best(biases)
    if shown is None or shown.lower == 0:
        note = "the departure is confirmed, but no single event certifies its size"
        return replace(common, notes=(note,))
    notes = [f"largest certified departure, on {shown.sample.pair.name!r}: {shown}"]
    if shown.witness.joint:
        notes.append("the rows of one call depend on each other; each row by itself may follow the target")
    metric = "tv of the rows of one call" if shown.witness.joint else "tv"
    return replace(common, bias_lower=shown.lower, metric=metric, notes=tuple(notes))


def _passed(common: Verdict, findings: list[Finding], suspects: list[Finding], least: int) -> Verdict:
    of_pairs = [item for item in findings if item.scenario not in EDGES]
    bound = max(item.bound for item in of_pairs if item.bound is not None and item.metric == "ks")
    smallest: dict[str, float] = {}
    for item in of_pairs:
        what = f"{item.check} ({item.metric})"
        smallest[what] = max(item.smallest or 0.0, smallest.get(what, 0.0))
    notes = [
        "the bound is on the Kolmogorov-Smirnov distance along the tested directions and radii; it does not bound the "
        "total variation, which no number of samples does for a continuous law",
        "defects seen nine times in ten: " + ", ".join(f"{what} {size:.2g}" for what, size in smallest.items()),
    ]
    if suspects:
        notes.append(f"{suspects[0].check} on {suspects[0].scenario!r} rejected, and was not confirmed on fresh rows")
    if bound <= WIDE:
        return replace(common, status="lossless", bias_upper=bound, metric="ks", notes=tuple(notes))
    needs = (
        f"{ENOUGH} rows of each pair instead of {least}: give budget='thorough', or make the function handle all rows "
        "of draft_value at once"
    )
    return replace(common, status="inconclusive", bias_upper=bound, metric="ks", needs=needs, notes=tuple(notes))


def _beside(subject: Subject, chosen: list[Pair], count: int, limits: Budget, seed: int) -> Coupled | NotCoupled:
    """The coupling with an exact rule on every pair, or why there is none."""
    try:
        return couple(subject, chosen, count, SHARE * limits.seconds, DELTA, seed)
    except NotCoupled as reason:
        return reason


def _coupled(verdict: Verdict, beside: Coupled | NotCoupled, name: str, seed: int) -> Verdict:
    """The verdict of the checks, raised to one on the total variation where the outputs are an exact rule's.

    A mismatch is no evidence against a function: an exact rule may use its draws in another way.
    """
    if isinstance(beside, NotCoupled):
        return replace(verdict, notes=(*verdict.notes, f"not coupled with an exact rule: the function {beside}"))
    found = tuple(stamp(item, verifier=name, scenario=item.scenario, seed=seed) for item in beside.findings)
    verdict = replace(verdict, findings=(*verdict.findings, *found))
    odd = sum(round(item.statistic * item.n) for item in found)
    rows = math.ceil(math.log(len(found) / DELTA) / FINE)
    note = (
        f"run beside {beside.reference} on the same drafts and draws, {odd or 'no'} row{'s' * (odd != 1)} of "
        f"{sum(item.n for item in found)} differ by more than rounding; {beside.rows} rows or more of each pair, of "
        f"which {rows} without a mismatch would bound the total variation by {FINE:g}"
    )
    if beside.bound > WIDE:
        return replace(verdict, notes=(*verdict.notes, note))
    about = "the Kolmogorov-Smirnov distance along the tested directions and radii is bounded as well, by "
    about += f"{verdict.bias_upper:.3g}"
    rest = verdict.notes[1:]  # the first says that only the distance of Kolmogorov and Smirnov is bounded
    common = replace(verdict, status="lossless", evidence="coupling", bias_upper=beside.bound, metric="tv", needs="")
    return replace(common, notes=(note, about, *rest))
