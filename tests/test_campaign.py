"""A campaign finds the same wherever it runs, goes on after a kill, and reports what is not as claimed."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from distributions.law import Law
from distributions.tape import Tape
from tests.interrupts import heard
from verify.campaign import BUDGETS, CONTINUOUS, Cell, campaign, cells, judge, surprises, tilted
from verify.cli import main
from verify.errors import SubjectError
from verify.records import Claim, Draft, Outcome
from verify.saboteurs.residual_target import ResidualTarget
from verify.scenarios import scenarios
from verify.verifier import catalog
from verify.verifiers.lenient import Lenient
from verify.verifiers.rejection import Rejection
from verify.workers import Processes

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give
SOME = ("ties/2", "one_node/2", "equal_laws/3")


def some(*names: str, seeds: int = 2) -> list[Cell]:
    return [cell for cell in cells("quick", seeds, names) if cell.scenario in SOME]


def test_every_function_meets_every_scenario_and_seed() -> None:
    jobs = cells("thorough", 3)
    assert len({cell.key for cell in jobs}) == len(jobs)
    assert len({cell.name for cell in jobs}) == sum(
        len(catalog(name)) for name in ("verifiers", "saboteurs", "controls")
    )
    rejection = [cell for cell in jobs if cell.name == "rejection"]
    assert len(rejection) == 3 * len(scenarios(BUDGETS["thorough"][0]))
    assert sum(cell.scenario == CONTINUOUS for cell in jobs if cell.name == "cspd") == 3
    with pytest.raises(SubjectError, match="there is no 'rejecton'"):
        cells(only=["rejecton"])


@pytest.mark.parametrize("name", scenarios((3,)))
def test_a_seed_changes_the_laws_and_keeps_what_the_scenario_is_about(name: str) -> None:
    case = scenarios((3,))[name]
    other, third = tilted(case, 1), tilted(case, 2)
    assert tilted(case, 0) is case and other.name == name and other.draft_length == case.draft_length
    for one, two in ((case.drafter, other.drafter), (case.target, other.target)):
        tiny = torch.finfo(torch.float64).tiny  # masses that are not normal numbers may round to nothing
        assert torch.equal(one.table > tiny, two.table > tiny)
        point = bool((one.table.max(-1).values == 1).all())
        assert torch.equal(one.table, two.table) == point
    assert not torch.equal(other.drafter.table, third.drafter.table) or name == "point_mass_drafter/3"
    if case.drafter.order == case.target.order:
        before, after = ((each.target.table - each.drafter.table).abs().max() for each in (case, other))
        assert bool(after <= 3 * before + 1e-15)  # the weights lie in [1, 3), and so do their sums


def ordered(path: Path) -> list[str]:
    """The lines of a campaign's file, after checking that they are sorted."""
    head, *lines = path.read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    keys = [(row["verifier"], row["scenario"], row["seed"]) for row in rows]
    assert "campaign" in json.loads(head) and keys == sorted(set(keys))
    return [head, *lines]


@pytest.mark.slow
def test_other_processes_and_a_cluster_find_the_same(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="distributed is not installed; pip install distributed")
    jobs = [*some("rejection", "saboteurs/residual_target"), *cells("quick", 1, ["saboteurs/reflection_about_mean"])]
    campaign(jobs, tmp_path / "one.jsonl")
    with Processes(2) as pool:
        campaign(jobs, tmp_path / "processes.jsonl", pool)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.ERROR
    ) as cluster:
        with distributed.Client(cluster) as client, client.get_executor() as pool:
            campaign(jobs, tmp_path / "dask.jsonl", pool)
    lines = ordered(tmp_path / "one.jsonl")
    assert len(lines) == 1 + len(jobs) == 14
    assert ordered(tmp_path / "processes.jsonl") == ordered(tmp_path / "dask.jsonl") == lines


@pytest.mark.slow
@pytest.mark.parametrize("name", ["last_gaussian", "reflection", "saboteurs/gaussian_residual_target"])
def test_a_continuous_rule_is_judged_alike_beside_others(name: str) -> None:
    """What is timed depends on how busy the machine is; a cell is not."""
    (job,) = cells("quick", 1, [name])
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        beside = judge(job)
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    assert judge(job) == beside


def arguments(output: Path, *more: str) -> list[str]:
    return ["campaign", "--output", str(output), "--only", "typical", "--workers", *(more or ("1",))]


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.slow), "2"])
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_killed_campaign_goes_on(workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    path, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    call = [sys.executable, "-m", "verify", *arguments(path, workers)]
    running = subprocess.Popen(call, start_new_session=True, cwd=Path(__file__).parents[1])
    try:
        for _ in range(6000):
            if lines_of(path) >= 4:
                break
            assert running.poll() is None
            time.sleep(0.01)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        left = [int(word) for word in children.read_text().split()] if children.exists() else []
    finally:
        running.kill()  # SIGKILL to this process alone: nobody tells its workers
        running.wait()
    found = lines_of(path)
    assert 4 <= found < 39
    with path.open("ab") as file:
        file.write(b'{"verifier": "typical", "scen')  # and the line that it was writing
    judged: list[Cell] = []
    monkeypatch.setattr("verify.campaign.judge", lambda cell: judged.append(cell) or judge(cell))
    assert main(arguments(path)) == 0 and main(arguments(whole)) == 0
    assert "38 cells of 1 functions, seeds 0 to 0: every finding is as claimed" in capsys.readouterr().out
    assert len(judged) == 38 - (found - 1) + 38  # what was there is not judged again
    assert ordered(path) == ordered(whole)
    assert main(arguments(path)) == 0 and len(judged) == 38 - (found - 1) + 38
    gone = time.monotonic() + 30
    while time.monotonic() < gone and any(Path(f"/proc/{child}").exists() for child in left):
        time.sleep(0.05)
    assert workers == "1" or left and not any(Path(f"/proc/{child}").exists() for child in left)


def test_an_interrupt_keeps_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, path = some("rejection", "lenient"), tmp_path / "findings.jsonl"
    done: list[Cell] = []

    def interrupted(cell: Cell) -> str:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(cell)
        return judge(cell)

    monkeypatch.setattr("verify.campaign.judge", interrupted)
    for executor in (None, ThreadPoolExecutor(1)):
        with pytest.raises(KeyboardInterrupt):
            campaign(jobs, path, executor)
        assert lines_of(path) == 1 + 5
    monkeypatch.setattr("verify.campaign.judge", judge)
    assert len(campaign(jobs, path)) == len(jobs)


@pytest.mark.slow
def test_an_interrupt_at_a_terminal_is_quiet(tmp_path: Path) -> None:
    """Every process of the terminal's group is sent the signal, the workers too; the status is that of an interrupt."""
    path = tmp_path / "findings.jsonl"
    call = [sys.executable, "-m", "verify", *arguments(path, "2")]
    running = subprocess.Popen(
        call, start_new_session=True, preexec_fn=heard, stderr=subprocess.PIPE, cwd=Path(__file__).parents[1]
    )
    while lines_of(path) < 4:
        assert running.poll() is None
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 130 and said == b""
    assert 4 <= lines_of(path) < 39 and path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a diary", "is not the file of a campaign"),
        ('{"verifier": "rejection"}\n', "is not the file of a campaign"),
        ('{"campaign": {"specproof": "0.0.1"}}\n', "of a campaign with other settings"),
        (None, "that is no JSON"),
    ],
)
def test_another_file_is_refused_and_left_alone(text: str | None, says: str, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "findings.jsonl"
    if text is None:
        campaign(some("rejection", seeds=1), path)
        head, first, *rest = path.read_text().splitlines()
        text = "\n".join([head, first[:9], *rest, ""])
    path.write_text(text)
    with pytest.raises(SubjectError, match=says):
        campaign(some("rejection", seeds=1), path)
    assert path.read_text() == text


def test_settings_are_the_same_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule whose field is a function shows where that lies in memory; a restart would be refused."""
    jobs, path = cells("quick", 1, ["coalescing"]), tmp_path / "findings.jsonl"
    assert " at 0x" in repr(jobs[0].verifier)
    row = {"verifier": "coalescing", "scenario": CONTINUOUS, "seed": 0}
    monkeypatch.setattr("verify.campaign.judge", lambda cell: json.dumps(row))
    campaign(jobs, path)
    head = path.read_text().splitlines()[0]
    assert "Coalescing(coupling=<function maximal>)" in head


def test_settings_that_differ_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "findings.jsonl"
    campaign(some("rejection", seeds=1), path)
    text = path.read_text()
    lenient = [Cell("lenient", Lenient(0.8), cell.scenario, cell.seed) for cell in some("lenient", seeds=1)]
    for jobs in (some("rejection"), some("rejection", "lenient", seeds=1), some("rejection", seeds=1)[1:], lenient):
        with pytest.raises(SubjectError, match="with other settings"):
            campaign(jobs, path)
    assert path.read_text() == text


@dataclass(frozen=True)
class Pretender:
    """A known defect that claims to be exact."""

    claim: ClassVar[Claim] = Claim(exact=True, reference="a test")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        return ResidualTarget().verify(draft, target, tape)


@dataclass(frozen=True)
class Modest:
    """An exact rule that claims to be lossy."""

    claim: ClassVar[Claim] = Claim(exact=False, reference="a test")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        return Rejection().verify(draft, target, tape)


@dataclass(frozen=True)
class Unknowable:
    """Draws what cannot be enumerated."""

    claim: ClassVar[Claim] = Claim(exact=True, reference="a test")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        tape.uniform("threshold", draft.value.shape)
        raise AssertionError("unreachable")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Pretender, "planted claims to be exact: lossy on random_first_order/2 under seed 1, bias at least 0.2"),
        (Modest, "planted claims to be lossy, and is so in none of its 4 cells"),
        (Unknowable, "planted claims to be exact: inconclusive on"),
    ],
)
def test_what_is_not_as_claimed_is_reported(
    kind: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    jobs = [
        Cell("planted", kind(), scenario, seed)
        for scenario in ("equal_laws/3", "random_first_order/2")
        for seed in (0, 1)
    ]
    (sentence,) = surprises(jobs, campaign(jobs, tmp_path / "findings.jsonl"))
    assert sentence.startswith(says), sentence
    monkeypatch.setattr("verify.campaign.cells", lambda *_: [*some("rejection"), *jobs])
    assert main(["campaign", "--output", str(tmp_path / "all.jsonl"), "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert sentence in printed and "rejection claims" not in printed and "1 not as claimed" in printed


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--workers", "0"], ["--only", "nobody"]])
def test_a_wrong_call_is_one_line_and_status_3(words: Sequence[str], tmp_path: Path, capsys: Any) -> None:
    assert main(["campaign", "--output", str(tmp_path / "findings.jsonl"), *words]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1 and not os.listdir(tmp_path)
