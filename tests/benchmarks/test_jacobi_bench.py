"""Jacobi decoding by the clock.

Target evaluations are what the rules save; a clock also sees what a wider evaluation costs, and the rule's own
arithmetic. Both models are small, so that arithmetic is a large part here, where on a large model it is nothing.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distributions import pixels
from distributions.autoregressive import Markov
from distributions.raster import Raster
from distributions.tape import GeneratorTape
from distributions.transformer import forward, inputs
from tests.benchmarks.report import Section, Versus
from verify.hamming import Course, follow
from verify.studies.jacobi.cells import digits, grid
from verify.work import Subject, ancestral, rules

ROWS = 16
SUBJECTS = [grid(0.855), digits(ROWS)]


@pytest.mark.parametrize("subject", SUBJECTS, ids=["grid", "digits"])
@pytest.mark.parametrize("rule", ["sjd", "scd", "scd_gumbel", "gs_match"])
def test_decoding(rule: str, subject: Subject, versus: Versus, section: Section) -> None:
    """A batch of images by a rule at window 32, against the same number drawn token by token without a cache."""
    drafter, verifier = Markov(torch.ones(1, subject.vocab), 0), rules()[rule]

    def decoded() -> Course:
        return follow(subject.target, drafter, verifier, 31, subject.length, GeneratorTape(0), ROWS, subject.condition)

    run = versus(decoded, lambda: ancestral(subject, ROWS, GeneratorTape(0)), turns=3)
    saved = subject.length / float(run.result.rounds.double().mean())
    assert run.result.tokens.shape == (ROWS, subject.length) and saved > 1
    section.row(
        model=subject.name,
        rule=rule,
        evaluations_saved=saved,
        time_over_ancestral=run.ratio,
        seconds=run.seconds,
        ancestral_seconds=run.reference_seconds,
    )


def test_a_window_of_the_grid(versus: Versus, section: Section) -> None:
    model = Raster.random(64, 1.0)
    state, value = model.start(ROWS), torch.zeros(ROWS, 63, dtype=torch.long)
    one = torch.ones(ROWS, dtype=torch.long)

    def single() -> Tensor:
        here, laws = state, []
        for column in range(64):
            laws.append(model.law(here).probs)
            here = model.extend(here, value[:, :1], one)
            assert int(here.count[0]) == column + 1
        return torch.cat(laws, 1)

    run = versus(lambda: model.law(state, value).probs, single)
    assert torch.equal(run.result, run.reference_result)
    section.say(f"The laws of 64 columns of {ROWS} grids at once take {run.ratio:.2f} of the time of one by one.")


@pytest.mark.parametrize("length", [2, 8, 32])
def test_a_pass_of_the_transformer(length: int, versus: Versus, section: Section) -> None:
    """A pass over some tokens against a pass over one, both after 32 tokens in the cache, one image."""
    model = pixels.trained(torch.float32)
    read = inputs(torch.zeros(1, model.size, dtype=torch.long), model.size, model.vocab)
    label = torch.zeros(1, dtype=torch.long)
    _, cache = forward(model.weights, read[:, :32], label)

    def passed(tokens: int) -> Tensor:
        for _ in range(20):
            hidden, _ = forward(model.weights, read[:, 32 : 32 + tokens], label, cache)
        return hidden

    run = versus(lambda: passed(length), lambda: passed(1))
    assert torch.allclose(run.result[:, :1], run.reference_result, atol=1e-4)
    section.row(tokens_a_pass=length, time_over_one_token=run.ratio, pass_seconds=run.seconds / 20)
