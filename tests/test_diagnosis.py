"""A wrong law is traced to the rule it belongs to, and to none where it belongs to none."""

from __future__ import annotations

import pytest
import torch

from tests.test_judge import BUGS, rule
from verify import check_verifier
from verify.diagnosis import diagnose, law_of_verifier
from verify.problems import pool
from verify.spaces.discrete import ProblemLaw, law_of
from verify.verifier import catalog
from verify.verifiers.rejection import Rejection

NAMES = {
    "always accept": "always_accept",
    "u = 0 (vLLM-Ascend #13730)": "always_accept",
    "residual is the target (mlx-lm #1085)": "residual_target",
    "residual |p - q|": "residual_absolute",
    "residual softmax((p - q)+) (transformers #27979)": "residual_softmax",
    "residual floored (vLLM #13933)": "residual_floor",
    "residual argmax": "residual_argmax",
    "square root of the ratio": "ratio_root",
    "lenience 0.99": "lenient (lenience = 0.99)",
    "bonus from the last draft row": "bonus_from_draft",
    "bonus from the previous target row": "bonus_previous_row",
    "argmax of the target": "match_argmax",
}


@pytest.mark.parametrize("bug", NAMES)
def test_foreign_bugs_are_named(bug):
    laws = [law_of(BUGS[bug], problem) for problem in pool(3, 2)]
    found = diagnose([law for law in laws if law.bias > 1e-9])
    assert found.startswith(f"behaves exactly like {NAMES[bug]}"), found


@pytest.mark.parametrize("name", catalog("saboteurs"))
def test_every_saboteur_is_lossy_and_named_by_its_law_alone(name):
    saboteur = catalog("saboteurs")[name]()
    cases = []
    for problem in pool(3, 2):
        law = law_of_verifier(saboteur, problem)
        assert float(law.sum()) == pytest.approx(1.0, abs=1e-12)
        cases.append(ProblemLaw(problem, {}, law, 0.0, 0.0, 0))
    wrong = [case for case in cases if case.bias > 1e-9]
    assert wrong
    assert diagnose(wrong).startswith(f"behaves exactly like {name}")


def test_two_defects_at_once_are_not_given_the_name_of_one():
    both = rule(accept=lambda p, q, x: p[x] / q[x] / 0.9, residual=lambda p, q, x: p)
    laws = [law_of(both, problem) for problem in pool(3, 2)]
    assert diagnose([law for law in laws if law.bias > 1e-9]) == ""


def test_the_verdict_carries_the_diagnosis():
    verdict = check_verifier(BUGS["residual softmax((p - q)+) (transformers #27979)"])
    assert "residual_softmax, huggingface/transformers #27979" in verdict.diagnosis
    assert verdict.diagnosis in str(verdict)


def test_a_catalogue_verifier_has_the_law_of_the_same_rule_written_by_hand():
    for problem in pool(3, 2):
        assert torch.allclose(law_of_verifier(Rejection(), problem), law_of(rule(), problem).law, atol=1e-15, rtol=0)
