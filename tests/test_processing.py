"""From logits to probabilities: each step against its definition, the order of the steps, and their limits."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor

from distributions.canvas import Canvas
from distributions.categorical import Categorical
from distributions.law import Law
from distributions.model import Model
from distributions.processing import Processed, Processing
from distributions.raster import Raster
from distributions.tape import GeneratorTape, Tape
from verify.exact import exact_chain
from verify.records import Claim, Draft, Outcome
from verify.verifiers.rejection import Rejection

torch.set_num_threads(1)
LOGITS = torch.tensor([[2.0, 1.0, 1.0, 0.0, -1.0], [0.5, 3.0, -2.0, 0.5, 0.5]])
OTHER = torch.tensor([[0.0, 1.0, 2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 2.0, -1.0]])
TABLES = GeneratorTape(7).normal("logits", (2, 40, 9))


def test_nothing_is_softmax() -> None:
    assert torch.equal(Processing()(LOGITS), LOGITS.double().softmax(-1))


def test_guidance() -> None:
    """s = 1 is the conditional law, s = 0 the unconditional; between and beyond, p is proportional to c^s u^(1-s)."""
    assert torch.equal(Processing(1.0)(LOGITS, OTHER), Processing()(LOGITS))
    assert torch.equal(Processing(0.0)(LOGITS, OTHER), Processing()(OTHER))
    conditional, unconditional = Processing()(LOGITS), Processing()(OTHER)
    for scale in (0.5, 2.0, 3.0):
        wanted = conditional**scale * unconditional ** (1 - scale)
        assert torch.allclose(Processing(scale)(LOGITS, OTHER), wanted / wanted.sum(-1, keepdim=True), atol=1e-15)
    assert torch.allclose(Processing(5.0)(LOGITS, LOGITS), conditional, atol=1e-15)  # equal halves: no guidance at all
    with pytest.raises(ValueError, match="unconditional"):
        Processing(3.0)(LOGITS)


def test_mask() -> None:
    mask = torch.tensor([True, False, True, True, False])
    wanted = LOGITS.double().softmax(-1) * mask
    assert torch.allclose(Processing(mask=mask)(LOGITS), wanted / wanted.sum(-1, keepdim=True), atol=1e-15)
    assert not Processing(mask=mask)(LOGITS)[:, ~mask].any()
    with pytest.raises(ValueError, match="no token"):
        Processing(mask=torch.zeros(5, dtype=torch.bool))


def test_top_k_keeps_ties() -> None:
    assert [(Processing(top_k=k)(LOGITS[0]) > 0).sum() for k in range(1, 6)] == [1, 3, 3, 4, 5]
    assert [(Processing(top_k=k)(LOGITS[1]) > 0).sum() for k in range(1, 6)] == [1, 4, 4, 4, 5]
    assert (Processing(top_k=1)(torch.zeros(4)) == 0.25).all()
    for k in (5, 6, 1000):
        assert torch.equal(Processing(top_k=k)(LOGITS), Processing()(LOGITS))
    with pytest.raises(ValueError, match="top_k"):
        Processing(top_k=0)


def test_temperature() -> None:
    whole = Processing()(LOGITS)
    squared = whole**2 / (whole**2).sum(-1, keepdim=True)
    assert torch.allclose(Processing(temperature=0.5)(LOGITS), squared, atol=1e-15)
    assert torch.allclose(Processing(temperature=1e9)(LOGITS), torch.full((2, 5), 0.2).double(), atol=1e-8)
    greedy = Processing(temperature=0.0)(LOGITS)
    assert torch.equal(greedy, torch.nn.functional.one_hot(LOGITS.argmax(-1), 5).double())
    assert torch.equal(Processing(temperature=1e-300)(LOGITS), greedy)  # the limit, and no overflow on the way
    assert torch.equal(
        Processing(temperature=0.0)(torch.tensor([1.0, 3.0, 3.0])), torch.tensor([0.0, 0.5, 0.5]).double()
    )
    for bad in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            Processing(temperature=bad)


def test_the_order_matters_and_is_the_stated_one() -> None:
    """Every other order of guidance, mask and top-k gives another law on these logits; temperature goes last."""
    mask = torch.tensor([False, True, True, True, True])
    steps = {
        "guidance": lambda z, u: 3 * (z - u) + u,
        "mask": lambda z, u: torch.where(mask, z, -math.inf),
        "top_k": lambda z, u: torch.where(z < z.topk(2, -1).values[..., -1:], -math.inf, z),
    }
    conditional, unconditional = (
        torch.tensor([4.0, 2.5, 2.0, 0.0, 1.0]).double(),
        torch.tensor([3.0, 3, 2, 0, 0]).double(),
    )
    laws = {}
    for order in itertools.permutations(steps):
        logits = conditional
        for name in order:
            logits = steps[name](logits, unconditional)
        laws[order] = logits.softmax(-1)
    found = Processing(3.0, mask, 2)(conditional, unconditional)
    assert torch.allclose(found, laws["guidance", "mask", "top_k"], atol=1e-15)
    assert not torch.allclose(found, laws["top_k", "guidance", "mask"], atol=0.01)
    assert not torch.allclose(found, laws["guidance", "top_k", "mask"], atol=0.01)
    # k is taken of the guided and masked logits at T = 1 as at any T: temperature keeps their order.
    cool = Processing(3.0, mask, 2, 0.7)(conditional, unconditional)
    assert torch.equal(cool > 0, found > 0)
    assert torch.allclose(cool, found ** (1 / 0.7) / (found ** (1 / 0.7)).sum(), atol=1e-15)


@given(some.integers(1, 12), some.floats(0.05, 5), some.floats(-1, 8))
def test_always_a_law(k: int, temperature: float, scale: float) -> None:
    found = Processing(scale, top_k=k, temperature=temperature)(TABLES[0], TABLES[1])
    assert found.dtype == torch.float64 and torch.allclose(found.sum(-1), torch.ones(40).double(), atol=1e-14)
    kept = (found > 0).sum(-1)
    assert bool((kept <= min(k, 9)).all())  # no ties among these


def test_a_shift_of_the_logits_changes_nothing() -> None:
    settings = Processing(2.0, top_k=3, temperature=0.8)
    assert torch.allclose(settings(TABLES[0] + 7, TABLES[1] - 4), settings(TABLES[0], TABLES[1]), atol=1e-14)


@dataclass(frozen=True, eq=False)
class Labelled(Raster):
    """A grid model with three sharpnesses by label, the last for no label."""

    def labels(self, rows: int, condition: Any) -> Tensor:
        return torch.full((rows,), 2 if condition is None else condition)

    def scores(self, tokens: Tensor, place: Tensor, label: Tensor) -> Tensor:
        return super().scores(tokens, place, label) * torch.tensor([1.0, 2.0, 0.5])[label].reshape(-1, 1, 1)


@dataclass(frozen=True)
class Unprocessed:
    """Rejection that takes its drafts for draws of the uniform law: a label other than the law drawn from."""

    claim: ClassVar[Claim] = Claim(exact=False, reference="planted here")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        assert isinstance(draft.law, Categorical)
        flat = Categorical(torch.ones_like(draft.law.probs))
        return Rejection().verify(Draft(draft.value, flat, draft.parent), target, tape)


MODEL = Labelled(Raster.random(4, 1.0).tables, 1.0, 3, 3)


def test_a_processed_model_processes_every_law_of_the_window() -> None:
    """At any draft, tree or chain, its laws are those of the two states, guided and processed, column by column."""
    settings = Processing(1.7, torch.tensor([True, True, True, False]), 2, 0.9)
    model = Processed(MODEL, settings)
    assert isinstance(model, Model)
    state = model.extend(model.start(2, 1), torch.tensor([[0, 1, 2], [2, 2, 0]]), torch.tensor([1, 3]))
    assert len(state) == 2 and all(isinstance(each, Canvas) for each in state)
    plain = [
        MODEL.extend(MODEL.start(2, label), torch.tensor([[0, 1, 2], [2, 2, 0]]), torch.tensor([1, 3]))
        for label in (1, None)
    ]
    value = torch.tensor([[0, 2, 1], [1, 1, 0]])
    for parent in (None, torch.tensor([-1, -1, 0])):
        logits = [MODEL.logits(each, value, parent) for each in plain]
        assert torch.equal(model.law(state, value, parent).probs, Categorical(settings(*logits)).probs)
    chosen = model.select(state, torch.tensor([1]))
    assert torch.equal(model.law(chosen, value[1:]).probs, model.law(state, value).probs[1:])


def test_without_guidance_one_evaluation_is_enough() -> None:
    model = Processed(MODEL, Processing(temperature=0.8))
    assert len(model.start(3, 0)) == 1
    assert torch.allclose(model.law(model.start(3, 0)).probs, (MODEL.logits(MODEL.start(3, 0)) / 0.8).softmax(-1))


def test_a_processed_model_decodes_exactly() -> None:
    """Enumerated: rejection between two processed models has the processed target's law of four tokens, and a draft
    labelled with the law that stands before processing, here the uniform one, does not.
    """
    target = Processed(MODEL, Processing(1.5, top_k=3, temperature=0.8))
    drafter = Processed(Raster(Raster.random(4, 1.0, 5).tables, 1.0, 3, 3), Processing(top_k=2))
    assert exact_chain(target, drafter, Rejection(), 2, 4).tv < 1e-12
    assert exact_chain(target, drafter, Unprocessed(), 2, 4).tv > 1e-2
