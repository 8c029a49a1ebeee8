"""The ladder's study: its bounds on cases whose truth is known, its table on trained heads, and a planted bug."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from distributions.datasets import CONDITION, conditions, ring
from distributions.flow import FlowLaw
from distributions.heads import ExactHead
from distributions.law import Law
from distributions.path import PathLaw
from distributions.tape import GeneratorTape, Tape
from distributions.training import pretrained
from tests.ladder_models import normal_data
from verify.parts import Parts
from verify.records import Claim, Draft, Outcome
from verify.studies import ladder
from verify.studies.ladder import bounds, measure, tables
from verify.studies.ladder.chains import LIMIT, Counted, Definition, Heads, Remembered, costly, rungs, switches
from verify.studies.ladder.measure import Job, chunk, jobs_of, joined, spent
from verify.studies.ladder.meeting import meeting
from verify.studies.ladder.second import second
from verify.study import write
from verify.verifier import Verifier, catalog
from verify.verifiers.coalescing import Coalescing
from verify.verifiers.cspd import Cspd
from verify.verifiers.cspd_released import CspdReleased

torch.set_num_threads(1)
EIGHT = Definition(8, "learned")


@dataclass(frozen=True)
class Leaning(Coalescing):
    """A planted bug: a token that was refused is emitted half of the time, in place of its replacement."""

    claim: ClassVar[Claim] = Claim(exact=True, reference="a false claim", laws="path")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        outcome = super().verify(draft, target, tape)
        value = outcome.value.clone()
        lean = tape.coin("lean", torch.full((len(value),), 0.5).double())
        value[lean, 0, -1] = draft.value[lean, 0, -1]
        return replace(outcome, value=value, kept=outcome.kept | lean.unsqueeze(1))


def entries(definition: Definition, rules: dict[str, Verifier], rows: int, **more: int) -> dict[str, tables.Entry]:
    jobs = jobs_of("ring", definition, rules, rows, rows, count(7), **more)
    found = joined(jobs)
    between = tables.overlap(rules, found)
    return {name: tables.Entry("ring", definition, name, rules[name], part, between) for name, part in found.items()}


# --- the bounds ------------------------------------------------------------------------------------------------------
def test_a_bound_is_below_the_truth_and_near_it() -> None:
    """N(0, 1) against N(1, 1): TV = 2 Phi(1/2) - 1 = .3829, and the best event is a half-line. False alarm 1e-6."""
    truth = math.erf(0.5 / math.sqrt(2))
    first, second_ = (GeneratorTape(seed).normal("x", (20_000,)) + shift for seed, shift in ((1, 1.0), (2, 0.0)))
    for pair in ((first, second_), (second_, first)):
        assert truth - 0.05 < bounds.apart(*pair, 1e-6) <= truth
        assert abs(bounds.gap(*pair) - truth) < 6 * math.sqrt(2 * 0.25 / 10_000)  # 6 standard errors at most
    assert bounds.apart(first[:10_000], first[10_000:], 1e-6) == 0.0  # one law: false alarm 1e-6
    assert bounds.apart(first[:4], second_[:4], 1e-3) == 0.0


def test_innovations_are_uniform_on_the_targets_own_paths_and_not_on_the_drafts() -> None:
    """False alarm DELTA / 2 by the band of Massart; the draft's chain is other than the target's."""
    pair, condition = pretrained("ring"), conditions(GeneratorTape(0), 2000)
    target, draft = (EIGHT.paths(head, condition) for head in (pair.target, pair.drafter))
    for law, wrong in ((target, False), (draft, True)):
        found = bounds.departure(bounds.innovations(law.sample(GeneratorTape(1), "x"), target, draft))
        assert (found.least > 0) == wrong and found.n == 2000
    same = bounds.innovations(target.sample(GeneratorTape(1), "x"), target, target)  # no direction: the first axis
    assert bounds.departure(same).least == 0.0


def test_the_score_of_exact_reversals_is_the_log_ratio_of_the_tokens() -> None:
    """N(m, I) keeps its variance, so that the large kernel is the exact reversal, but for its start: the chains of both
    start at N(0, I). So log P / Q = <m, x_0> - |m|^2 / 2 less the same at x_T, of mean signal_T m; the score is its
    mean, off by a normal of variance |signal_T m|^2 (1 - signal_T^2) / draws. Six standard errors of 500 values.
    """
    zero, shift, rule, draws = torch.zeros(2, dtype=torch.float64), 0.7, Definition(10, "large"), 16
    heads = Heads(ExactHead(normal_data(shift, slope=0.0), zero), ExactHead(normal_data(slope=0.0), zero))
    token = GeneratorTape(2).normal("x", (500, 2))
    found = bounds.score(token, torch.zeros(500, 2).double(), heads, draws, GeneratorTape(3), rule)
    signal, length = float(rule.schedule().signal[-1]), 2 * shift**2
    kept = 1 - signal**2
    wanted = kept * (shift * token.sum(-1) - length / 2)
    spread = math.sqrt(signal**2 * kept * length / draws)
    assert abs(float((found - wanted).mean())) < 6 * spread / math.sqrt(500)
    assert float((found - wanted).std()) < 1.2 * spread  # 6.3 standard errors of the deviation


# --- the rules -------------------------------------------------------------------------------------------------------
def test_rungs_are_the_catalogues() -> None:
    wanted = {name for name, kind in catalog().items() if kind.claim.laws in ("path", "flow")}
    wanted -= {"coalescing_jacobi"}  # which judges its own carry, and no drafter
    assert set(rungs()) == wanted and {"whole_path", "flow_exact", "pooled_noise"} <= wanted
    assert {name for name, rule in rungs().items() if costly(rule)} == {"flow_exact", "pooled_noise"}
    assert rungs()["cspd"] == Cspd(tries=LIMIT) and rungs()["cspd_released"] == CspdReleased()
    found = dict(switches())
    assert found["inverted"] == CspdReleased.published(inverted=True, tries=LIMIT)
    assert found["tries"] == CspdReleased.published(tries=100) and found["all of them"] == CspdReleased()


def test_what_is_remembered_is_what_was_said() -> None:
    counted = Counted(pretrained("ring").target)
    head = Remembered(counted, 5, most=1)
    value, condition = GeneratorTape(1).normal("x", (5, 2)), conditions(GeneratorTape(2), 5)
    level = torch.tensor([0.8, 0.6]).double().unbind()
    first, again = (head(value, *level, condition) for _ in range(2))
    assert torch.equal(first.clean, again.clean) and counted.count == 5
    for other in ((value + 1, condition), (value, -condition), (value[:3], condition[:3])):
        assert torch.equal(head(other[0], *level, other[1]).clean, counted.head(other[0], *level, other[1]).clean)
    assert counted.count == 18


def test_what_is_differentiated_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer from memory has no slope, and a rule that divides by slopes would go wrong; pooled_noise notices."""
    pair = pretrained("ring", dtype=torch.float64)
    rules = {"pooled_noise": rungs()["pooled_noise"]}
    job = Job("ring", EIGHT, rules, 2, 3, heads=Heads(pair.target, pair.drafter))
    assert chunk(job)["pooled_noise"].rows == 2
    monkeypatch.setattr(measure, "costly", lambda rule: False)
    with pytest.raises(ValueError, match="jumps"):
        chunk(job)


def test_remembering_changes_nothing() -> None:
    """Rules one by one, and together on one draft: the same numbers."""
    rules = {name: rungs()[name] for name in ("coalescing", "cspd", "cspd_released", "restarting")}
    job = Job("ring", EIGHT, rules, 60, 3, checked=60)
    together = chunk(job)
    for name, rule in rules.items():
        alone = chunk(replace(job, rules={name: rule}))[name]
        assert (alone.kept, alone.zeros) == (together[name].kept, together[name].zeros)
        assert torch.equal(alone.innovations, together[name].innovations)


def test_the_table() -> None:
    """restarting <= coalescing <= 1 - TV <= 1, to 3 standard errors; who is flagged. False alarm: DELTA a cell."""
    rules = {name: rule for name, rule in rungs().items() if not costly(rule)} | {"leaning": Leaning()}
    for variance in ("learned", "large"):
        found = entries(Definition(8, variance), rules, 1200)
        least, middle = (found[name].acceptance for name in ("restarting", "coalescing"))
        error = math.hypot(least[1], middle[1])
        assert least[0] - 3 * error <= middle[0] <= found["coalescing"].overlap[1] + 3 * error <= 1 + 3 * error
        exact = {name for name in rules if rules[name].claim.exact} - {"leaning"}
        assert not any(found[name].flagged for name in exact)
        assert found["cspd_released"].flagged and found["leaning"].flagged
        for name in exact:
            assert found[name].most == (0.0, "proof") and found[name].row()["verdict"] == "no bias seen"
        released = found["cspd_released"]
        assert released.least[0] <= released.most[0]
        if variance == "large":  # Sigma = 1: the published rule is last_gaussian
            assert found["cspd"].part.kept == found["last_gaussian"].part.kept
            assert found["cspd"].most[1] == "Sigma = 1" and not found["cspd"].flagged


def test_excess_certifies_what_accepts_more_than_the_overlap() -> None:
    """A rule that keeps every draft: its bias is TV itself, which an event of the score sees as well."""
    scores = bounds.Scores(
        *(GeneratorTape(seed).normal("x", (20_000,)) + far for seed, far in ((1, 1.0), (2, 0), (2, 0)))
    )
    low, how = bounds.least_bias(20_000, 20_000, scores, 0)
    assert how in ("excess", "event") and 0.3 < low <= math.erf(0.5 / math.sqrt(2))
    level = replace(scores, emitted=GeneratorTape(3).normal("x", (20_000,)) + 1.0)
    assert bounds.least_bias(5_000, 20_000, level, 0) == (0.0, "")
    assert bounds.least_bias(5_000, 20_000, level, 2_000)[1] == "atom"


def test_the_mean_of_bounded_values_from_above() -> None:
    """All zeros: (1 - u)^n = DELTA. In general at most Hoeffding's bound, and above the mean."""
    assert bounds.mean_at_most(0.0, 500, 3.0) == pytest.approx(3 * (1 - bounds.DELTA ** (1 / 500)))
    for mean in (0.01, 0.9, 2.9):
        plain = mean + 3 * math.sqrt(math.log(1 / bounds.DELTA) / 1000)
        assert mean < bounds.mean_at_most(mean, 500, 3.0) <= plain


def test_the_coupling_bounds_an_aligned_rule_from_above() -> None:
    """One try that always leaves zeros: the bias is the chance of zeros at least, and A + B + Z is above it."""
    rule = CspdReleased.published(tries=0)
    found = entries(EIGHT, {"none": rule, "coalescing": rungs()["coalescing"]}, 400)["none"]
    assert found.part.zeros == 400 - found.part.kept and found.least[1] == "atom"
    assert found.part.reach is not None and found.part.reach >= found.part.zeros
    assert found.least[0] < found.most[0]


def test_the_second_token_shows_what_the_first_cannot() -> None:
    """Without rollback a token stays whose context was replaced; a rule that is exact has exact second tokens."""
    cases = ("low_rank", dict(switches())["rollback"], True), ("ring", Coalescing(), False)
    for data, rule, wrong in cases:
        columns = second(rule, Job(data, EIGHT, {}, 1000, 2))
        assert columns.shape[1] == 5 and len(columns) >= 100
        assert (bounds.departure(columns).least > 0) == wrong
    assert second(Cspd(), Job("low_rank", EIGHT, {}, 10, 2)).shape == (0, 5)


def test_costs() -> None:
    steps = EIGHT.schedule().steps
    job = Job("ring", EIGHT, {}, 40, 1)
    walked = spent(Coalescing(), job)
    # Verified and, where it is kept, followed by a bonus of as many steps: T evaluations for every emitted token.
    assert walked.target == pytest.approx(steps) and walked.seconds > 0
    assert spent(rungs()["flow_exact"], replace(job, rows=4)).target > steps


def test_a_walk_adds_up() -> None:
    """Acceptance is that of the rule on as many rows (6 s.e., 2e-9); equal heads never part."""
    pair = pretrained("ring")
    walk = meeting(Heads(pair.target, pair.drafter), EIGHT, 2000, GeneratorTape(4))
    after = walk.together[:-1] * (1 - walk.parted) + (1 - walk.together[:-1]) * walk.healed.nan_to_num(0.0)
    assert torch.allclose(after, walk.together[1:], rtol=0, atol=1e-12)
    kept = entries(EIGHT, {"coalescing": Coalescing()}, 2000)["coalescing"].acceptance
    assert abs(kept[0] - float(walk.together[-1])) < 6 * math.sqrt(2 * 0.25 / 2000)
    still = meeting(Heads(pair.target, pair.target), EIGHT, 20, GeneratorTape(4))
    assert bool((still.together == 1).all()) and bool((still.distance == 0).all())


def test_definitions() -> None:
    grid, cut = Definition(10, "large").schedule(), Definition(10, "large", cut=3).schedule()
    assert grid.steps == 9 and cut.steps == 6 and torch.equal(cut.noise[1:], grid.noise[4:])
    head, condition = pretrained("ring", dtype=torch.float64).target, conditions(GeneratorTape(0), 3)
    assert isinstance(EIGHT.law(head, condition, "flow"), FlowLaw)
    assert isinstance(EIGHT.law(head, condition, "path"), PathLaw)
    assert "temperature 0.5" in str(Definition(10, "large", 0.5)) and CONDITION == condition.shape[1]
    assert ring(condition).batch_shape == (3,)


@pytest.mark.slow
def test_a_small_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eight = (EIGHT, Definition(8, "small"))
    rows = {(data, steps): 60 for data in ladder.DATA for steps in (8, ladder.ALIGNED.steps)}
    size = ladder.Size(eight, rows, 60, (4, 2), 1, (6,), 30, (0.05,), 2, 4, 1)
    study = ladder.study(size, kept=Parts(tmp_path / "kept"))
    monkeypatch.delattr(ladder, "joined")  # and again, with nothing to compute
    assert ladder.study(size, kept=Parts(tmp_path / "kept")).tables == study.tables
    first = study.tables["Every rule on every sampler"]
    assert len(first) == 2 * (2 * len(rungs()) - 1)  # the flow once
    assert {row["rule"] for row in first} == set(rungs()) and len(study.figures) == 2
    assert len(study.tables["The published rule, one switch of the released one at a time"]) == 2 * 8
    assert all(path.is_file() for path in write(study, "ladder", tmp_path, {"seed": "0"}))
