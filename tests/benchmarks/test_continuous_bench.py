"""Verifier throughput: continuous tokens of sixteen numbers.

Eight drafted tokens, laws of one covariance whose means are one standard deviation apart, so that 62 % of the drafts
are kept; paths are of 25 steps through heads of three layers of 256, one drafted token. The reference draws a token for
each row from the target's law alone, which for a path is its whole chain. A verification is given its draft: what is
timed is the rule, and the ratio is per token. A Gaussian whose mean is given costs nothing to draw from, and so a rule
saves nothing there; it saves the evaluations that give the mean.
"""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from distributions.gaussian import Gaussian
from distributions.path import Denoiser, PathLaw
from distributions.schedule import cosine
from distributions.tape import GeneratorTape
from tests.benchmarks.report import Section, Versus
from tests.benchmarks.test_ladder_bench import Network
from tests.ladder_models import innovations
from verify.records import Draft, Outcome
from verify.verifier import catalog

DIM, NODES, STEPS, CALLS = 16, 8, 25, 8
BATCHES = [1, 8, 64]
RULES = ["rejection", "reflection", "residual_coupling", "gaussian_block"]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", RULES)
def test_gaussians(name: str, batch: int, versus: Versus, section: Section) -> None:
    rule, shift = catalog()[name](), torch.full((DIM,), DIM**-0.5, dtype=torch.float64)
    zero, one = torch.zeros(batch, NODES + 1, DIM), torch.ones(batch, NODES + 1, DIM)
    target, prior = Gaussian(zero + shift, one), Gaussian(zero[:, 1:], one[:, 1:])
    tape = GeneratorTape(0)
    drafts = [Draft.chain(prior.sample(tape, "draft"), prior) for _ in range(CALLS)]
    run = versus(
        lambda: [rule.verify(draft, target, tape) for draft in drafts],
        lambda: [target[:, 0].sample(tape, "alone") for _ in drafts],
        turns=9,
    )
    outcomes: list[Outcome] = run.result
    tokens = sum(int(item.length.sum()) for item in outcomes)
    line = torch.cat([(item.value[:, 0] - shift) @ shift for item in outcomes])
    assert stats.kstest(line.numpy(), "norm").pvalue > 1e-9  # the first token, along the shift; false alarms 1e-9
    section.row(
        rule=name,
        rows_a_call=batch,
        time_a_token_over_drawing_it=run.ratio * batch * CALLS / tokens,
        tokens_a_row=tokens / batch / CALLS,
        tokens_per_second=tokens / run.seconds,
    )


@pytest.mark.parametrize("batch", BATCHES)
def test_paths(batch: int, versus: Versus, section: Section) -> None:
    rule, grid, condition = catalog()["coalescing"](), cosine(STEPS), torch.zeros(batch, 2, 1)
    heads = [Network(seed) for seed in (0, 1)]
    target = PathLaw(Denoiser(heads[0], grid, condition, fraction=0.5))
    prior = PathLaw(Denoiser(heads[1], grid, condition[:, :1], fraction=0.5))
    tape = GeneratorTape(0)
    draft = Draft.chain(prior.sample(tape, "draft"), prior)

    def alone() -> Tensor:
        return target[:, 0].sample(tape, "alone")

    run = versus(lambda: rule.verify(draft, target, tape), alone, turns=5)
    white = innovations(run.result.value[:, 0], PathLaw(target.kernel[:, 0]))
    assert stats.kstest(white.flatten().numpy(), "norm").pvalue > 1e-9
    tokens = int(run.result.length.sum())
    section.row(
        rule="coalescing, paths",
        rows_a_call=batch,
        time_a_token_over_drawing_it=run.ratio * batch / tokens,
        tokens_a_row=tokens / batch,
        tokens_per_second=tokens / run.seconds,
    )
