"""The study of robustness: its evidence sees planted defects, and only those; its cases are what they say."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from distributions.datasets import CONDITION, conditions, heavy_tailed, moons, ring
from distributions.flow import Ends, FlowLaw
from distributions.heads import ExactHead
from distributions.law import Law
from distributions.path import Denoiser, PathLaw
from distributions.schedule import cosine
from distributions.tape import GeneratorTape, Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude
from verify.studies.robustness import RULES, Cell, present, together
from verify.studies.robustness.cases import Case, cases, exact
from verify.studies.robustness.evidence import acceptances, measure, own_path, p_values, told_apart
from verify.study import write
from verify.verifier import Verifier
from verify.verifiers.last_gaussian import LastGaussian
from verify.verifiers.pooled_noise import PooledNoiseRule

torch.set_num_threads(1)
GRID = cosine(4).one_step_in()
ONE = cosine(2).one_step_in()
SHORT = cosine(3).one_step_in()
NEAR = Case("near", exact(ring, 0.003, GRID), exact(ring, grid=GRID))
SHORTER = Case("shorter", exact(ring, 0.003, SHORT), exact(ring, grid=SHORT))
FAR = Case("far", exact(ring, 0.1, SHORT), exact(ring, grid=SHORT))
SAME = Case("same", exact(moons, grid=GRID), exact(moons, grid=GRID))
EXACT = {name: rule for name, rule in RULES.items() if rule.claim.exact}


@dataclass(frozen=True)
class KeepAll:
    """A planted defect: every draft is kept."""

    claim: ClassVar[Claim] = Claim(exact=False, reference="planted", laws="path")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        every = torch.ones(draft.value.shape[:2], dtype=torch.bool)
        return conclude(draft, target, every, torch.zeros(every.shape).double(), tape)


@dataclass(frozen=True)
class TargetForResidual(LastGaussian):
    """A planted defect: a rejected point is drawn from the target and not from the residual."""

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        outcome = super().verify(draft, target, tape)
        assert isinstance(target, PathLaw)
        value, first = outcome.value.clone(), ~outcome.kept[:, 0]
        law = target[:, 0].kernel.step(1, value[:, 0, -2])
        value[first, 0, -1] = law.sample(tape, "again")[first]
        return replace(outcome, value=value)


# --- rules -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["whole_path", "restarting", "coalescing", "last_gaussian", "cspd"])
def test_equal_models_keep_everything(name: str) -> None:
    """And what is emitted has the target's law (false alarm 1e-6)."""
    cell = measure(SAME, name, RULES[name], 300, 0)
    assert cell.acceptance == pytest.approx((1.0, 0.0), abs=1e-9) and cell.verdict == "no bias seen"


@pytest.mark.parametrize("name", EXACT)
def test_exact_rules_are_not_accused(name: str) -> None:
    """A wrong drafter, each rule (false alarm 1e-6 each)."""
    slow = name in ("pooled_noise", "flow_exact")
    cell = measure(FAR if slow else NEAR, name, EXACT[name], 25 if slow else 1000, 1)
    assert cell.verdict == "no bias seen" and 0.01 < cell.acceptance[0] < 1


@pytest.mark.parametrize(
    "rule, case",
    [
        (KeepAll(), NEAR),
        (TargetForResidual(), Case("one step", exact(ring, 0.003, ONE), exact(ring, grid=ONE))),
        (RULES["cspd_released"], NEAR),
        (RULES["cspd"], Case("hotter", exact(ring, temperature=1.1), exact(ring))),
    ],
    ids=["everything kept", "residual := target", "released", "published, unequal variances"],
)
def test_defects_are_flagged(rule: Verifier, case: Case) -> None:
    assert measure(case, "planted", rule, 4000, 2).verdict == "lossy"


def test_the_published_rule_is_exact_where_variances_are_equal() -> None:
    assert measure(NEAR, "cspd", RULES["cspd"], 2000, 3).verdict == "no bias seen"


def test_chains_of_unlike_length_are_refused() -> None:
    longer = Case("longer", exact(ring, grid=cosine(5).one_step_in()), exact(ring, grid=GRID))
    with pytest.raises(ValueError, match="give both as many steps"):
        measure(longer, "coalescing", RULES["coalescing"], 4, 0)


# --- evidence --------------------------------------------------------------------------------------------------------
def test_innovations_of_the_law_pass_and_others_fail() -> None:
    """Standard normals pass (1e-6); each departure is seen by the test that is made for it."""
    white = GeneratorTape(5).normal("x", (4000, 5, 2))

    def seen(changed: Tensor) -> set[str]:
        return {name for name, chance in p_values(changed)[0].items() if chance < 1e-6}

    def last(factor: float, shift: float) -> Tensor:
        return torch.cat((white[:, :-1], factor * white[:, -1:] + shift), 1)

    assert not seen(white)
    assert "all" in seen(1.1 * white)
    assert {"last", "sums"} <= seen(last(1.0, 0.15))
    assert "lengths" in seen(last(1.2, 0.0))
    rare = white.clone()
    rare[:40, -1] = 5.0
    assert seen(rare) >= {"far points"}
    together_ = white.clone()
    together_[:, 1] = (white[:, 0] + white[:, 1]) / math.sqrt(2)
    assert seen(together_) == {"products of sums"} or "products of sums" in seen(together_)
    scaled = white * (0.5 + white[:, :1, :1].abs().expand(-1, 5, 2) / 1.6)
    assert "products of lengths" in seen(scaled)
    assert p_values(white)[1] < p_values(white[:500])[1]


def test_two_samples_of_a_flow() -> None:
    """One law is not told apart (1e-6); another location, or another share without noise, is."""

    def ends(seed: int, shift: float, lost: float) -> Ends:
        tape = GeneratorTape(seed)
        noise, found = tape.normal("x", (800, 2)) + shift, ~tape.coin("lost", torch.full((800,), lost).double())
        return Ends(noise, noise, noise[:, 0], found)

    first = ends(0, 0.0, 0.2)
    assert min(told_apart(first, ends(1, 0.0, 0.2)).values()) > 1e-6
    assert told_apart(first, ends(2, 0.5, 0.2))["noise 0"] < 1e-6
    assert told_apart(first, ends(3, 0.0, 0.5))["lost"] < 1e-6


def test_a_flow_that_is_not_one_to_one_is_still_judged() -> None:
    """Under guidance many tokens have no noise to go back to."""
    guided = next(case for case in cases() if case.name == "guided target")
    cell = measure(guided, "flow_exact", RULES["flow_exact"], 16, 0)
    assert cell.lost > 0 and math.isnan(cell.smallest) and cell.verdict == "no bias seen"


def test_the_targets_path_to_a_pooled_token() -> None:
    """It ends at the token that was kept, and differs from the drafter's path before."""
    condition = conditions(GeneratorTape(0), 8).unsqueeze(1)
    prior, after = (PathLaw(build(condition)) for build in (SHORTER.drafter, SHORTER.target))
    draft = Draft.chain(prior.sample(GeneratorTape(1), "draft"), prior)
    outcome = PooledNoiseRule().verify(draft, after[:, [0, 0]], GeneratorTape(2))
    kept, emitted = outcome.kept[:, 0], outcome.value[:, 0]
    ours = own_path(PooledNoiseRule(), emitted, kept, prior[:, 0], after[:, 0])
    assert bool(kept.any())
    assert torch.allclose(ours[:, -1], emitted[:, -1], atol=1e-6)
    assert torch.equal(ours[~kept], emitted[~kept])
    assert bool(((ours[kept] - emitted[kept]).abs().amax((-1, -2)) > 1e-4).all())


# --- cases and pages -------------------------------------------------------------------------------------------------
def test_acceptances_without_replacements_are_the_rules_own() -> None:
    """Against whole rounds, five standard errors (6e-7 each); all 1 for equal models, the released rule's nearly."""
    short = acceptances(NEAR, 1000, 4, flows=10)
    for name in ("whole_path", "coalescing", "cspd_released"):
        cell = measure(NEAR, name, RULES[name], 1000, 5)
        gap = abs(short[name][0] - cell.acceptance[0])
        assert gap <= 5 * math.hypot(short[name][1], cell.acceptance[1]) + 1e-12
    same = acceptances(SAME, 50, 6, flows=5)
    assert same["whole_path"][0] == same["coalescing"][0] == same["cspd_released"][0] == 1.0
    assert same["flow_exact"][0] > 0.8  # what cannot be inverted is rejected


def test_cases_differ_where_they_say() -> None:
    """Drafter and target are two laws in every case, and flows differ where there is a case of them."""
    condition = conditions(GeneratorTape(0), 3)
    assert len({case.name for case in cases()}) == len(cases())
    for case in cases():
        kernels = [build(condition) for build in (case.drafter, case.target)]
        assert kernels[0].steps == kernels[1].steps
        value = GeneratorTape(1).normal("x", (3, kernels[0].dim))
        means, scales = zip(*(kernel.moments(3, value) for kernel in kernels), strict=True)
        assert not torch.equal(*means) or not torch.equal(*scales)
        ends = [FlowLaw(x.head, x.schedule, x.condition, x.guidance).transport(value) for x in kernels]
        assert not case.flows or not torch.equal(*ends)


def test_an_error_is_that_of_the_clean_value() -> None:
    head = exact(heavy_tailed, 0.01)(torch.zeros(2, CONDITION).double())
    assert isinstance(head, Denoiser) and isinstance(head.head, ExactHead) and head.head.error == 0.01


def test_the_pages_say_what_was_found(tmp_path) -> None:
    good = Cell("a", "coalescing", (0.5, 0.01), 0.3, "all", 0.05)
    bad = replace(good, rule="cspd_released", p_value=0.0)
    folded = Cell("b", "flow_exact", (0.4, 0.1), 0.2, "lost", math.nan, 0.25)
    falls = {"several modes": together([acceptances(NEAR, 40, seed, flows=10) for seed in (0, 1)])}
    study = present([good, bad, folded], falls, (0.01, 0.02))
    first = study.tables["Acceptance by case and rule; lossy where a bias was seen"][0]
    assert first["coalescing"] == "0.500" and first["cspd_released"] == "0.500, lossy" and first["whole_path"] == ""
    assert "was seen in none" in study.text and "lossy on 1 of 1 cases: a" in study.text
    assert "b 25.0%" in study.text
    accused = present([replace(good, p_value=1e-9), bad, folded], falls, (0.01, 0.02))
    assert "was seen in coalescing on a" in accused.text
    assert write(study, "robustness", tmp_path, {})
