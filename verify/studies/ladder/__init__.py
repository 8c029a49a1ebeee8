"""The ladder: every rule on paths and flows on trained heads; acceptance, certified bias and cost, and what is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

import torch

from distributions.datasets import conditions
from distributions.tape import GeneratorTape
from verify.estimates import plus_minus
from verify.parts import NOTHING, Parts, parts
from verify.studies.ladder import drawings
from verify.studies.ladder.bounds import departure
from verify.studies.ladder.chains import Definition, costly, rungs, switches
from verify.studies.ladder.measure import Job, Spent, cores, jobs_of, joined, spent, trained
from verify.studies.ladder.meeting import Meeting, meeting, remedies
from verify.studies.ladder.second import second
from verify.studies.ladder.tables import (
    Entry,
    accepted_row,
    cells,
    overlap,
    remedy_row,
    switch_row,
    walk_row,
)
from verify.studies.ladder.words import text
from verify.study import Row, Study
from verify.verifier import Verifier
from verify.verifiers.flow_exact import balance
from verify.verifiers.pooled_noise import PooledNoiseRule

DATA = ("ring", "low_rank")
ALIGNED = Definition(25, "learned")
"""On which the switches are thrown: with fixed variances Sigma is 1."""


@dataclass(frozen=True)
class Size:
    """``rows``: tokens by data and steps, of which ``checked`` are looked at; of rules that differentiate the head
    ``dear`` (flows, paths); ``draws`` of a score; ``steps`` of the remedies, with ``tried`` tokens each; ``spreads`` of
    pooled noise, with ``pooled`` tokens; tokens ``timed``; ``workers``: processes.
    """

    definitions: tuple[Definition, ...]
    rows: Mapping[tuple[str, int], int]
    checked: int
    dear: tuple[int, int]
    draws: int
    steps: tuple[int, ...]
    tried: int
    spreads: tuple[float, ...]
    pooled: int
    timed: int
    workers: int


SIZES: Mapping[str, Size] = {
    "quick": Size(
        (Definition(25, "learned"), Definition(25, "small"), Definition(100, "learned")),
        {(data, steps): rows for data in DATA for steps, rows in ((25, 1000), (100, 200))},
        1000, (40, 8), 4, (10, 25), 150, (0.05, 0.25), 8, 40, 1,
    ),
    "thorough": Size(
        (Definition(25, "learned"), Definition(25, "small"), Definition(25, "large"), Definition(100, "learned")),
        {("ring", 25): 20_000, ("ring", 100): 20_000, ("low_rank", 25): 20_000, ("low_rank", 100): 100_000},
        10_000, (10_000, 400), 8, (10, 25, 50, 100), 2000, (0.005, 0.02, 0.05, 0.1, 0.4), 200, 400, cores(),
    ),
}  # fmt: skip


def run(budget: str = "quick") -> Study:
    """Measure, tabulate and draw; ``budget`` says on how many tokens (``SIZES``). A thorough run keeps its parts."""
    size = SIZES[budget]
    return study(size, kept=parts("ladder", size) if budget == "thorough" else NOTHING)


def study(size: Size, device: str = "cpu", kept: Parts = NOTHING) -> Study:
    """The study at a size, part by part, each with seeds of its own."""
    number = count()

    def part(name: str, measure: Callable[..., Any], *what: Any) -> Any:
        return kept.of(name, partial(measure, *what, size, count(next(number) << 20), device))

    entries, took = [], {}
    for data in DATA:
        for definition in size.definitions:
            found, took[data, definition] = part(f"{data}, {definition}", _timed, data, definition)
            entries += found
    thrown = [row for data in DATA for row in part(f"{data}, switches", _switches, data)]
    helped = [row for data in DATA for row in part(f"{data}, remedies", _remedies, data)]
    pooled = [row for data in DATA for row in part(f"{data}, pooled noise", _spreads, data)]
    walked = {data: part(f"{data}, walks", _walks, data) for data in DATA}
    pictured = size.definitions[:2]
    groups = {
        f"{data}, {definition}": [x for x in entries if (x.data, x.definition) == (data, definition)]
        for data in DATA
        for definition in pictured
    }
    return Study(
        title="The ladder: what exactness costs on paths, and what else it can have",
        text="\n\n".join(text(entries, walked, took, size.checked, size.workers)),
        tables={
            "What is accepted": [accepted_row(cell) for cell in cells(entries)],
            "Every rule on every sampler": [entry.row() for entry in entries],
            "The published rule, one switch of the released one at a time": thrown,
            "Where the coalescing coupling loses": [
                walk_row(data, name, walk) for data, group in walked.items() for name, walk in group.items()
            ],
            "What closes the gap of the coalescing coupling": helped,
            "Pooled noise: its weights and the number of steps": pooled,
        },
        figures={
            "Bias of the token, from at least to at most, against acceptance. Every rule lies above the full line, "
            "and above the dotted one if 1 - TV is the least that it may be; the band is between the two.": (
                drawings.frontier(groups)
            ),
            "Paths that are together by level of noise, and the distance of the two means in standard deviations of "
            "the step, at the draft's own points. The last point is the clean level.": drawings.walks(walked),
        },
    )


# --- what is measured ------------------------------------------------------------------------------------------------
def _timed(
    data: str, definition: Definition, size: Size, seed: Iterator[int], device: str
) -> tuple[list[Entry], float]:
    start = time.perf_counter()
    return ladder(data, definition, size, seed, device), time.perf_counter() - start


def ladder(data: str, definition: Definition, size: Size, seed: Iterator[int], device: str = "cpu") -> list[Entry]:
    """Every rung on one sampler of one pair; flows on its grid, once for all variances that share it."""
    rules = rungs()
    many = {name: rule for name, rule in rules.items() if not costly(rule)}
    rows = size.rows[data, definition.steps]
    jobs = jobs_of(data, definition, many, rows, size.checked, seed, draws=size.draws, device=device)
    for name, rule in rules.items():
        if costly(rule) and definition.steps <= 25:
            some = size.dear[0] if rule.claim.laws == "flow" else size.dear[1]
            if rule.claim.laws == "flow" and definition != size.definitions[0]:
                continue  # a flow has no variance: the same law again
            chunk = max(1, min(256, some // size.workers))
            jobs += jobs_of(
                data, definition, {name: rule}, some, some, seed, size=chunk, draws=size.draws, device=device
            )
    found = joined(jobs, size.workers, f"{data}, {definition}")
    paths = {name: part for name, part in found.items() if rules[name].claim.laws == "path"}
    between = overlap(rules, paths)
    return [
        Entry(
            data, definition, name, rules[name], part,
            between if name in paths else flowing(data, definition, size.dear[0] // 2, next(seed), device),
            _spent(rules[name], Job(data, definition, {}, size.timed, next(seed), device=device)),
        )
        for name, part in found.items()
    ]  # fmt: skip


def _spent(rule: Verifier, job: Job) -> Spent:
    return spent(rule, replace(job, rows=max(4, job.rows // 10)) if costly(rule) else job)


def flowing(data: str, definition: Definition, rows: int, seed: int, device: str) -> tuple[float, float]:
    """1 - TV of two flows as either sees it, E_draft[min(1, p / q)] and E_target[min(1, q / p)], one error out."""
    heads, tape = trained(data, torch.float64, device), GeneratorTape(seed, device)
    condition = conditions(tape, min(rows, 1000))
    draft, target = (definition.law(head, condition, "flow") for head in (heads.drafter, heads.target))
    found = balance(draft, target, tape)  # type: ignore[arg-type]
    return (
        min(found.ahead[0] - found.ahead[1], found.back[0] - found.back[1]),
        max(found.ahead[0] + found.ahead[1], found.back[0] + found.back[1]),
    )


def _switches(data: str, size: Size, seed: Iterator[int], device: str) -> list[Row]:
    rules: dict[str, Verifier] = {"none, as published": rungs()["cspd"], **dict(switches())}
    count_of = size.rows[data, ALIGNED.steps]
    jobs = jobs_of(data, ALIGNED, rules, count_of, size.checked, seed, draws=size.draws, device=device)
    found = joined(jobs, size.workers, f"{data}, switches")
    most = overlap(rules, found)[1]
    rows = []
    for name, rule in rules.items():
        after = second(rule, Job(data, ALIGNED, {}, count_of // 2, next(seed), device=device))
        entry = Entry(data, ALIGNED, name, rule, found[name], (0.0, most))
        rows.append(switch_row(entry, departure(after) if len(after) >= 20 else None))
    return rows


def _remedies(data: str, size: Size, seed: Iterator[int], device: str) -> list[Row]:
    rules = {name: rule for name, rule in rungs().items() if rule.claim.exact and not costly(rule)}
    heads = trained(data, torch.float32, device)
    rows = []
    for definition in remedies(size.steps):
        jobs = jobs_of(data, definition, rules, size.tried, size.tried, seed, draws=size.draws, device=device)
        found = joined(jobs, 1, f"{data}, {definition}")
        rows.append(remedy_row(data, heads, definition, found, GeneratorTape(next(seed), device)))
    return rows


def _spreads(data: str, size: Size, seed: Iterator[int], device: str) -> list[Row]:
    known = PooledNoiseRule()
    tried = [(size.steps[0], spread) for spread in size.spreads]
    tried += [(steps, known.spread) for steps in size.steps[1:]]
    rows: list[Row] = []
    for steps, spread in tried:
        rule, definition = replace(known, spread=spread), Definition(steps, "large")
        tokens = max(6, size.pooled * size.steps[0] // steps)
        named: dict[str, Verifier] = {"pooled_noise": rule}
        jobs = jobs_of(data, definition, named, tokens, 0, seed, size=max(1, tokens // size.workers), device=device)
        share = joined(jobs, size.workers, f"{data}, pooled noise")["pooled_noise"].kept / tokens
        cost = _spent(rule, Job(data, definition, {}, size.timed, next(seed), device=device))
        rows.append({
            "data": data, "sampler": str(definition), "spread": spread, "tokens": tokens,
            "acceptance": plus_minus((share, (share * (1 - share) / tokens) ** 0.5)),
            "target evaluations": round(cost.target, 1), "CPU s per 10,000": round(1e4 * cost.seconds),
        })  # fmt: skip
    return rows


def _walks(data: str, size: Size, seed: Iterator[int], device: str) -> dict[str, Meeting]:
    chosen = [Definition(size.steps[-1], name) for name in ("small", "large", "learned")]
    heads = trained(data, torch.float32, device)
    return {str(x): meeting(heads, x, size.tried, GeneratorTape(next(seed), device)) for x in chosen}
