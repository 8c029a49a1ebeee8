"""The ladder's own work against the heads': 16 dimensions, 100 steps, heads of three layers of 256.

The reference evaluates both heads at every point of the drafted paths and does nothing else. The share in heads counts
what the rule asked of them, bonuses included; the rest is the coupling, the drawing and the bookkeeping. Where the
variances agree the coupling is a reflection, and the general one where they differ.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from distributions.heads import Prediction
from distributions.path import Denoiser, PathLaw
from distributions.schedule import cosine
from distributions.tape import GeneratorTape
from tests.benchmarks.report import Section, Versus
from tests.ladder_models import innovations
from verify.records import Draft
from verify.verifiers.coalescing import Coalescing
from verify.verifiers.cspd import Cspd
from verify.verifiers.restarting import Restarting

ROWS, DIM, STEPS, WIDTH = 1_000, 16, 100, 256


class Network(torch.nn.Module):
    """A head of random weights, near the identity: what it costs is all that counts."""

    dim, null = DIM, torch.zeros(1)

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            sizes = (DIM, WIDTH, WIDTH, WIDTH, DIM)
            layers = [torch.nn.Linear(*pair) for pair in zip(sizes[:-1], sizes[1:], strict=True)]
        parts = [part for layer in layers for part in (layer, torch.nn.SiLU())]
        self.body = torch.nn.Sequential(*parts[:-1])
        self.asked = 0

    @torch.no_grad()
    def forward(self, value: Tensor, signal: Tensor, noise: Tensor, condition: Tensor) -> Prediction:
        self.asked += value[..., 0].numel()
        clean = (signal * value + 0.01 * self.body(value.float())).double()
        return Prediction(clean, (value - signal * clean) / noise)


@pytest.mark.parametrize("fraction", [0.5, 0.51], ids=["variances agree", "variances differ"])
@pytest.mark.parametrize("rule", [Coalescing(), Restarting(), Cspd()], ids=lambda rule: type(rule).__name__)
def test_overhead(rule: Any, fraction: float, versus: Versus, section: Section) -> None:
    grid, condition = cosine(STEPS), torch.zeros(ROWS, 2, 1)
    networks = [Network(seed) for seed in (0, 1)]
    target = PathLaw(Denoiser(networks[0], grid, condition, fraction=fraction))
    prior = PathLaw(Denoiser(networks[1], grid, condition[:, :1], fraction=0.5))
    draft = Draft.chain(prior.sample(GeneratorTape(0), "draft"), prior)
    zero = torch.zeros(())

    def heads() -> None:
        for place in range(STEPS):
            for network in networks:
                network(draft.value[:, :, place], zero + 1, zero + 1, condition[:, :1])

    tape, turns = GeneratorTape(1), 3
    before = sum(network.asked for network in networks)
    run = versus(lambda: rule.verify(draft, target, tape), heads, turns=turns)
    asked = (sum(network.asked for network in networks) - before) / turns / (2 * STEPS * ROWS) - 1
    first = run.result.value[:200, 0]
    if rule.claim.exact:  # the target's law, by one test at a false alarm of 1e-8
        white = innovations(first, PathLaw(target.kernel[:200, 0]))
        assert stats.kstest(white.flatten().numpy(), "norm").pvalue > 1e-8
    kept = run.result.kept[:, 0]
    assert torch.equal((run.result.value[:, 0, -1] == draft.value[:, 0, -1]).all(-1), kept)
    section.row(
        rule=type(rule).__name__,
        variances="agree" if fraction == 0.5 else "differ",
        kept=float(kept.double().mean()),
        time_over_heads=run.ratio,
        share_in_heads=asked / run.ratio,
        seconds=run.seconds,
    )
