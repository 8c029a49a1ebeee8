"""The density of a deterministic sampler.

The trained 16-D heads, 24 steps of the cosine grid. A density needs the Jacobian of every step; inverting the map needs
the noise besides. The reference of the inversion is Newton's method with a new Jacobian at every iteration; the one in
use searches with the Jacobian of the step before, corrected by Broyden's updates, so that only the Jacobian at the
solution is computed, which the density needs anyway. The reference of the Jacobian itself is forward mode.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.func import jvp, vmap

from distributions.datasets import conditions
from distributions.flow import FlowLaw
from distributions.preimage import jacobian
from distributions.schedule import cosine
from distributions.tape import GeneratorTape
from distributions.training import pretrained
from tests.benchmarks.report import Section, Versus
from verify.records import Draft
from verify.verifiers.flow_exact import FlowExact

ROWS = 128


def law(rows: int, dtype: torch.dtype, role: str = "target", nodes: int = 1) -> FlowLaw:
    head = getattr(pretrained("low_rank", dtype=dtype), role)
    condition = conditions(GeneratorTape(0), rows).unsqueeze(1).expand(-1, nodes, -1)
    return FlowLaw(head, cosine(25).one_step_in(), condition)


def newton(flow: FlowLaw, value: Tensor) -> tuple[Tensor, Tensor, int]:
    """(noise, log density, Jacobians a step) of values (rows, d), by Newton's method undamped, all rows alike."""
    place, volume, count = value, torch.zeros(len(value), dtype=torch.float64), 0
    for step in range(1, flow.schedule.steps + 1):
        goal = place
        for _ in range(20):
            image, slope = jacobian(partial(flow.step, step), place)
            count += 1
            if float((image - goal).abs().max()) < 1e-12:
                break
            place = place + torch.linalg.solve(slope, goal - image)
        volume = volume + torch.linalg.slogdet(slope)[1]
    return place, flow.start().log_prob(place) - volume, count


def forward_mode(flow: FlowLaw, value: Tensor) -> Tensor:
    def along(direction: Tensor) -> Tensor:
        return jvp(partial(flow.step, 12), (value,), (direction.expand_as(value),))[1]

    slope: Tensor = vmap(along, out_dims=-1)(torch.eye(value.shape[1], dtype=torch.float64))
    return slope


def test_inversion(versus: Versus, section: Section) -> None:
    flow = law(ROWS, torch.float64)[:, 0]
    value = flow.sample(GeneratorTape(1), "value")
    run = versus(lambda: flow.invert(value), lambda: newton(flow, value), turns=3)
    ends, (noise, log_prob, count) = run.result, run.reference_result
    assert bool(ends.found.all())
    assert torch.allclose(ends.noise, noise, rtol=0, atol=1e-9)
    assert torch.allclose(ends.log_prob, log_prob, rtol=0, atol=1e-8)
    section.row(
        rows=ROWS,
        broyden_over_newton=run.ratio,
        newton_jacobians_a_step=count / flow.schedule.steps,
        broyden_seconds=run.seconds,
        newton_seconds=run.reference_seconds,
    )


def test_density_with_and_without_inversion(versus: Versus, section: Section) -> None:
    flow = law(ROWS, torch.float64)[:, 0]
    noise = flow.start().sample(GeneratorTape(1), "noise")
    value = flow.transport(noise)
    run = versus(lambda: flow.invert(value), lambda: flow.forward(noise), turns=3)
    assert torch.allclose(run.result.log_prob, run.reference_result.log_prob, rtol=0, atol=1e-8)
    section.row(rows=ROWS, inversion_over_forward=run.ratio, forward_seconds=run.reference_seconds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_jacobian(dtype: torch.dtype, versus: Versus, section: Section) -> None:
    flow = law(512, dtype)[:, 0]
    value = flow.start().sample(GeneratorTape(1), "value")
    run = versus(lambda: jacobian(partial(flow.step, 12), value)[1], lambda: forward_mode(flow, value))
    # Reverse and forward mode differ by the head's rounding.
    assert torch.allclose(run.result, run.reference_result, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-4)
    section.row(
        head=str(dtype).removeprefix("torch."),
        rows=512,
        reverse_over_forward_mode=run.ratio,
        reverse_seconds=run.seconds,
        forward_mode_seconds=run.reference_seconds,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_verification(dtype: torch.dtype, versus: Versus, section: Section) -> None:
    """Against sampling the target without speculation: what exactness costs on one core."""
    draft, target = law(ROWS, dtype, "drafter"), law(ROWS, dtype, "target", 2)
    value = draft.sample(GeneratorTape(3), "draft")

    def verify() -> Tensor:
        return FlowExact().verify(Draft.chain(value, draft), target, GeneratorTape(2)).kept

    run = versus(verify, lambda: target[:, 0].sample(GeneratorTape(3), "value"), turns=1)
    section.row(
        head=str(dtype).removeprefix("torch."),
        rows=ROWS,
        kept=float(run.result.double().mean()),
        verification_over_sampling_the_target=run.ratio,
        tokens_per_second=ROWS / run.seconds,
    )
    assert 0 < float(run.result.double().mean()) < 1
