"""The catalogue on every scenario under every seed, a cell each: on any executor, and resumable after a kill."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import verify
from distributions.autoregressive import Markov
from distributions.tape import GeneratorTape
from distributions.whole import whole
from verify.audit import audit, finite
from verify.errors import SubjectError
from verify.progress import track
from verify.scenarios import Scenario, scenarios
from verify.spaces.continuous import judged
from verify.verifier import Verifier, catalog

BUDGETS: Mapping[str, tuple[tuple[int, ...], int]] = {"quick": ((2, 3), 1 << 16), "thorough": ((2, 3, 5), 1 << 18)}
"""The vocabularies that are enumerated, and the rows that a continuous rule is drawn."""
CONTINUOUS = "continuous"
Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """A rule, by name, on one scenario under one seed; a rule on continuous laws has a scenario of its own."""

    name: str
    verifier: Verifier
    scenario: str
    seed: int
    budget: str = "quick"

    @property
    def key(self) -> tuple[str, str, int]:
        return self.name, self.scenario, self.seed


def cells(budget: str = "quick", seeds: int = 1, only: Iterable[str] = ()) -> list[Cell]:
    """Every cell of the catalogue, its planted defects (``saboteurs/NAME``) and false alarms (``controls/NAME``), or of
    the functions in ``only``. Raises SubjectError for a name that is none of them.
    """
    folders = (("verifiers", ""), ("saboteurs", "saboteurs/"), ("controls", "controls/"))
    every = {prefix + name: kind() for folder, prefix in folders for name, kind in catalog(folder).items()}
    chosen = list(dict.fromkeys(only)) or list(every)
    for name in chosen:
        if name not in every:
            raise SubjectError(f"there is no {name!r}; specproof list, --saboteurs or --controls, has the names")
    named = list(scenarios(BUDGETS[budget][0]))
    return [
        Cell(name, every[name], scenario, seed, budget)
        for name in chosen
        for scenario in (named if finite(every[name].claim) else [CONTINUOUS])
        for seed in range(seeds)
    ]


def tilted(scenario: Scenario, seed: int) -> Scenario:
    """Every law of both models times the same random weights of its tokens, in [1, 3), and normalised.

    Laws that were equal, nearly so, disjoint or point masses stay it, and no mass is made; seed 0 is the scenario as it
    stands.
    """
    if seed == 0:
        return scenario
    weights = 1 + 2 * GeneratorTape(seed).uniform("weights", (scenario.vocab,))
    drafter, target = (Markov(model.table * weights, model.order) for model in (scenario.drafter, scenario.target))
    return replace(scenario, drafter=drafter, target=target)


def judge(cell: Cell) -> str:
    """The line of a cell: its verdict and its findings, a function of the cell alone."""
    torch.set_num_threads(1)
    if cell.scenario == CONTINUOUS:
        verdict = judged(cell.name, cell.verifier, seed=cell.seed, rows=BUDGETS[cell.budget][1])
    else:
        case = scenarios([int(cell.scenario.rpartition("/")[2])])[cell.scenario]
        (verdict,) = audit({cell.name: cell.verifier}, {cell.scenario: tilted(case, cell.seed)})
    plain = json.loads(verdict.to_json())
    row = {"verifier": cell.name, "scenario": cell.scenario, "seed": cell.seed}
    row |= {name: plain[name] for name in ("status", "evidence", "bias_lower", "bias_upper")}
    return json.dumps(row | {"findings": [finding | {"seed": cell.seed} for finding in plain["findings"]]})


def campaign(jobs: Sequence[Cell], output: Path, executor: Executor | None = None) -> list[Row]:
    """Judge every cell that ``output`` does not hold, and return the rows of all, sorted as the file then is.

    The file has a line of settings and one line a cell, appended when the cell is known: a kill tears the last line at
    most, and its cell is judged again. Where a cell was judged changes no digit. ``executor``: any of
    ``concurrent.futures``. Raises SubjectError where the file is another's.
    """
    # A field that is a function shows its address, which is another in every process.
    functions = {cell.name: re.sub(" at 0x[0-9a-f]+", "", repr(cell.verifier)) for cell in jobs}
    sizes = {name: sorted({getattr(cell, name) for cell in jobs}) for name in ("budget", "seed", "scenario")}
    settings = {"specproof": verify.__version__, "torch": str(torch.__version__), **sizes, "functions": functions}
    head = json.dumps({"campaign": settings}) + "\n"
    known = {(row["verifier"], row["scenario"], row["seed"]): row for row in _resumed(output, head)}
    waiting = [cell for cell in jobs if cell.key not in known]
    with output.open("ab", buffering=0) as file:
        for line in track(_judged(waiting, executor), len(waiting), "judging"):
            file.write((line + "\n").encode())
            row = json.loads(line)
            known[row["verifier"], row["scenario"], row["seed"]] = row
    rows = [known[key] for key in sorted(cell.key for cell in jobs)]
    with whole(output) as beside:
        beside.write_text(head + "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _judged(waiting: Sequence[Cell], executor: Executor | None) -> Iterator[str]:
    if executor is None:
        yield from map(judge, waiting)
        return
    futures = [executor.submit(judge, cell) for cell in waiting]
    try:
        yield from (future.result() for future in as_completed(futures))
    finally:
        for future in futures:
            future.cancel()


def _resumed(output: Path, head: str) -> list[Row]:
    """The rows of a file with this head, a torn last line cut off; a new file gets its head."""
    text = output.read_text(encoding="utf-8") if output.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if head.startswith(text):  # nothing, or the beginning of a head
        output.write_text(whole := head)
    elif not whole.startswith('{"campaign": '):
        raise SubjectError(f"{output} is not the file of a campaign; give another --output")
    elif not whole.startswith(head):
        raise SubjectError(f"{output} is of a campaign with other settings; give those again, or another --output")
    elif whole != text:
        os.truncate(output, len(whole.encode()))
    try:
        return [json.loads(line) for line in whole.splitlines()[1:]]
    except ValueError as error:
        raise SubjectError(f"{output} has a line that is no JSON ({error}); delete that line") from None


def surprises(jobs: Iterable[Cell], rows: Iterable[Row]) -> list[str]:
    """A sentence for every function whose findings are not as it claims: exact is lossless in every cell (a false alarm
    has probability 0 where it is enumerated, at most 1e-6 a cell where it is sampled), lossy is so in one or more.
    """
    claims = {cell.name: cell.verifier.claim.exact for cell in jobs}
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["verifier"]].append(row)
    sentences = []
    for name, exact in claims.items():
        wrong = [row for row in found[name] if row["status"] != "lossless"]
        if exact and wrong:
            worst = max(wrong, key=lambda row: (row["status"] == "lossy", row["bias_lower"]))
            where = f"{worst['scenario']} under seed {worst['seed']}, bias at least {worst['bias_lower']:.3g}"
            sentences.append(f"{name} claims to be exact: {worst['status']} on {where}; {len(wrong)} such cells in all")
        elif not exact and not any(row["status"] == "lossy" for row in wrong):
            sentences.append(f"{name} claims to be lossy, and is so in none of its {len(found[name])} cells")
    return sentences
