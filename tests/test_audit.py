"""The audit's verdicts, what it leaves behind, and what it says of verifiers that cannot be enumerated."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from distributions.law import Law
from distributions.tape import Tape
from verify.audit import TOLERANCE, audit, conforms, examine, finite
from verify.exact import exact_rows
from verify.records import Claim, Draft, Finding, Outcome
from verify.scenarios import Scenario, scenarios
from verify.spaces.continuous import judged
from verify.verifier import Verifier, catalog
from verify.verifiers.lenient import Lenient
from verify.verifiers.rejection import Rejection

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

SOME = {
    name: case for name, case in scenarios((2, 3)).items() if name.split("/")[0] in {"one_node", "equal_laws", "ties"}
}


@pytest.mark.parametrize("name", [name for name, kind in catalog().items() if finite(kind.claim)])
def test_the_catalogue_conforms(name: str) -> None:
    kind = catalog()[name]
    (verdict,) = audit({name: kind()}, SOME)
    assert conforms(verdict, kind.claim), str(verdict)
    assert verdict.subject == name and verdict.evidence == "exact" and verdict.metric == "tv"
    assert verdict.confidence == 1.0 and verdict.bias_lower == verdict.bias_upper
    if kind.claim.exact:
        assert verdict.bias_upper < TOLERANCE and verdict.counterexample is None
        assert verdict.acceptance is not None and verdict.overlap is not None
        assert verdict.acceptance <= verdict.overlap + TOLERANCE
    else:
        assert verdict.counterexample is not None


def test_lenient_carries_its_exact_bias() -> None:
    """On a draft of one node the round's bias is lemma A5's, in the worst context; and the verdict says so."""
    case, verifier = SOME["one_node/3"], Lenient(0.8)
    (verdict,) = audit({"lenient": verifier}, {"one_node/3": case})
    rows = exact_rows(verifier, case.target, case.drafter, case.contexts, 1)
    laws = case.target.rows[(case.contexts[:, 0],)], case.drafter.rows[(case.contexts[:, 0],)]
    wanted = float(verifier.bias(*laws).max())
    assert verdict.status == "lossy" and verdict.bias_upper == pytest.approx(wanted, abs=1e-14)
    assert float(rows.tv.max()) == verdict.bias_upper > 0.01
    (note,) = verdict.notes
    assert "closed form" in note and "e-1" in note
    assert verdict.acceptance is not None and verdict.overlap is not None
    # Lemma L2 with equality: the acceptance exceeds the overlap by just the mean bias.
    assert verdict.acceptance - verdict.overlap == pytest.approx(float(verifier.bias(*laws).mean()), abs=1e-14)


def test_the_counterexample_is_the_smallest_and_its_snippet_shows_it() -> None:
    (verdict,) = audit({"lenient": Lenient(0.8)}, SOME)
    found = verdict.counterexample
    assert found is not None and found.sizes == {"vocab": 2, "draft_length": 1} and "one_node/2" in found.where
    assert sum(abs(found.found[token] - found.wanted[token]) for token in ("0", "1")) > 0.01
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(found.snippet, {})
    assert f"{found.bias:.4f}" in printed.getvalue()


def test_findings_are_appended_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "findings.jsonl"
    verifiers = {"rejection": Rejection(), "lenient": Lenient()}
    verdicts = audit(verifiers, SOME, findings=path)
    lines = [Finding(**json.loads(line)) for line in path.read_text().splitlines()]
    assert sorted(map(repr, lines)) == sorted(repr(one) for verdict in verdicts for one in verdict.findings)
    assert len(lines) == 2 * len(SOME) and {line.metric for line in lines} == {"tv"}
    audit({"rejection": Rejection()}, SOME, findings=path)
    assert len(path.read_text().splitlines()) == 3 * len(SOME)  # appended, never overwritten


@dataclass(frozen=True)
class Interrupted:
    """Stands for the user's hand: the keyboard interrupt comes at the first draft over three tokens."""

    claim: ClassVar[Claim] = Claim(exact=True, reference="a test")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        if getattr(target, "probs").shape[-1] == 3:  # noqa: B009
            raise KeyboardInterrupt
        return Rejection().verify(draft, target, tape)


def test_an_interrupt_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "findings.jsonl"
    with pytest.raises(KeyboardInterrupt):
        audit({"interrupted": Interrupted()}, SOME, findings=path)
    kept = [json.loads(line)["scenario"] for line in path.read_text().splitlines()]
    assert kept == [name for name in SOME if name.endswith("/2")] and kept


def test_an_executor_changes_nothing(tmp_path: Path) -> None:
    verifiers = {"rejection": Rejection(), "lenient": Lenient()}
    with ThreadPoolExecutor(2) as executor:
        parallel = audit(verifiers, SOME, executor=executor, findings=tmp_path / "findings.jsonl")
    serial = audit(verifiers, SOME)
    for one, other in zip(parallel, serial, strict=True):
        assert one.findings == other.findings and one.counterexample == other.counterexample
        assert (one.status, one.bias_upper, one.acceptance) == (other.status, other.bias_upper, other.acceptance)
    assert len((tmp_path / "findings.jsonl").read_text().splitlines()) == 2 * len(SOME)


def test_cases_travel_between_processes() -> None:
    job = pickle.loads(pickle.dumps(("lenient", Lenient(), SOME["one_node/2"])))
    assert (
        pickle.loads(pickle.dumps(examine(*job))).finding == examine("lenient", Lenient(), SOME["one_node/2"]).finding
    )


@dataclass(frozen=True)
class Continuous:
    """Rejection with a uniform where a coin would do: nothing that can be enumerated."""

    claim: ClassVar[Claim] = Claim(exact=True, reference="a test")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        tape.uniform("threshold", draft.value.shape)
        raise AssertionError("unreachable")


def test_what_cannot_be_enumerated_is_inconclusive_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "findings.jsonl"
    (verdict,) = audit({"continuous": Continuous()}, {"one_node/2": SOME["one_node/2"]}, findings=path)
    assert verdict.status == "inconclusive" and (verdict.bias_lower, verdict.bias_upper) == (0.0, 1.0)
    assert "threshold" in verdict.notes[0] and verdict.needs
    assert not conforms(verdict, Continuous.claim)
    assert json.loads(path.read_text())["statistic"] is None


@dataclass(frozen=True)
class RowsMixed:
    """Rejection against the target of the next row of the batch."""

    claim: ClassVar[Claim] = Claim(exact=True, reference="a test")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        rows = draft.value.shape[0]
        return Rejection().verify(draft, target[(torch.arange(rows) + 1) % rows], tape)


def test_rows_that_depend_on_one_another_are_run_together() -> None:
    (verdict,) = audit({"mixed": RowsMixed()}, {"one_node/2": SOME["one_node/2"]})
    assert verdict.status == "lossy" and verdict.bias_upper > 0.01
    assert verdict.findings[0].check == "enumeration of a batch"
    assert verdict.counterexample is not None and "exact_batch" in verdict.counterexample.snippet


def test_a_claim_too_modest_does_not_conform() -> None:
    @dataclass(frozen=True)
    class Modest:
        claim: ClassVar[Claim] = Claim(exact=False, reference="a test")

        def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
            return Rejection().verify(draft, target, tape)

    (verdict,) = audit({"modest": Modest()}, SOME)
    assert verdict.status == "lossless" and not conforms(verdict, Modest.claim)
    assert not conforms(audit({"lenient": Lenient(0.5)}, SOME)[0], Rejection.claim)


def test_scenarios_are_found_by_signature() -> None:
    found = scenarios((2, 3))
    assert len(found) == 2 * len(scenarios((5,))) > 30
    for name, case in found.items():
        assert name == case.name and isinstance(case, Scenario)
        assert case.vocab == int(name.split("/")[1]) == case.drafter.vocab
        assert len(case.contexts) >= 2 and case.draft_length >= 1


def test_scenarios_are_as_hostile_as_they_say() -> None:
    def tables(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        case = scenarios((5,))[f"{name}/5"]
        return case.target.table, case.drafter.table

    target, drafter = tables("disjoint_supports")
    assert float((target * drafter).max()) == 0
    target, drafter = tables("nearly_equal")
    assert 0 < float((target - drafter).abs().max()) < 1e-12
    target, drafter = tables("one_rounding_apart")
    assert 0 < float((target - drafter).abs().max()) < 1e-15
    target, drafter = tables("subnormal")
    assert float(drafter.min()) == 5e-324 and 0 < float(target.min()) < 2.3e-308
    target, drafter = tables("drafter_misses_tokens")
    assert bool(((drafter == 0) & (target > 0)).any(-1).all()) and not bool(((target == 0) & (drafter > 0)).any())
    target, drafter = tables("target_misses_tokens")
    assert bool(((target == 0) & (drafter > 0)).any(-1).all())
    target, drafter = tables("ties")
    assert int((target[0] == target[0].max()).sum()) == 2 and float(drafter.std()) == 0


@dataclass(frozen=True)
class Slowed:
    """A rule on a machine where a call takes a third of a second."""

    rule: Verifier

    @property
    def claim(self) -> Claim:
        return self.rule.claim

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        time.sleep(0.3)
        return self.rule.verify(draft, target, tape)


def test_a_slow_machine_says_the_same() -> None:
    rule = catalog()["coalescing"]()
    fast, slow = (judged("coalescing", item, rows=8192) for item in (rule, Slowed(rule)))  # type: ignore[arg-type]
    assert slow.seconds > fast.seconds + 0.3
    assert replace(slow, seconds=0.0) == replace(fast, seconds=0.0)
