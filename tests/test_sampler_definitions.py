"""The study of sampler definitions: its ruler, its acceptances, its choice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Tensor

from distributions.datasets import CONDITION, conditions, datasets, ring
from distributions.gaussian import Gaussian
from distributions.heads import ExactHead, Prediction
from distributions.mixture import Mixture
from distributions.tape import GeneratorTape
from distributions.training import Trained, pretrained
from verify.records import Draft
from verify.studies.sampler_definitions import _chosen, amplified, cells, present
from verify.studies.sampler_definitions.cells import Cell, Definition, Ruler, Size, accepted, directions, qualities
from verify.studies.sampler_definitions.choice import as_good, best, eligible, pooled, recommended, rivals
from verify.study import write
from verify.verifiers.coalescing import Coalescing
from verify.verifiers.whole_path import WholePath

torch.set_num_threads(1)
PLACE = conditions(GeneratorTape(0), 4)


def bell(condition: Tensor) -> Mixture:
    """N(0, I) in the plane, whatever the condition."""
    shape = (*condition.shape[:-1], 1)
    return Mixture(torch.ones(shape), Gaussian(torch.zeros(*shape, 2), torch.ones(2)))


@dataclass(frozen=True)
class Off:
    """A head whose predicted noise is off by a constant."""

    head: ExactHead
    error: float

    @property
    def dim(self) -> int:
        return self.head.dim

    @property
    def null(self) -> Tensor:
        return self.head.null

    def __call__(self, value: Tensor, signal: Tensor, noise: Tensor, condition: Tensor) -> Prediction:
        told = self.head(value, signal, noise, condition)
        return Prediction(told.clean - noise / signal * self.error, told.noise + self.error)


# --- the ruler -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("far", [0.5, 3.0, 1000.0])
def test_a_shift_is_as_far_as_it_is_long(far: float) -> None:
    """Moved by s, the distance along a is |s a|: also where the samples are far outside the data. 6 standard errors."""
    ruler, shift = Ruler(bell, PLACE), torch.tensor([far, 0.0]).double()
    value = GeneratorTape(1).normal("x", (4, 20_000, 2)) + shift
    found, error = ruler(value)
    wanted = float((directions(2) @ shift).abs().mean())
    assert 0 < error < 0.01
    # Along directions that are nearly orthogonal the floor is added: about .8 / sqrt(n) in two of sixteen.
    assert abs(found - wanted) < 6 * error + 0.001


def test_the_floor_falls_with_the_root_of_the_sample() -> None:
    """E int |F_n - F| is about int sqrt(2 F (1 - F) / (pi n)): sixteen times the sample, a quarter of the floor, to six
    standard errors.
    """
    ruler = Ruler(bell, PLACE)
    small, large = (ruler.floor(size, GeneratorTape(size)) for size in (1000, 16_000))
    assert abs(small[0] / large[0] - 4) < 6 * math.hypot(small[1] / large[0], small[0] * large[1] / large[0] ** 2)


def test_standard_errors_are_those_of_repetition() -> None:
    """The jackknife against the spread of 24 independent distances, where these are smooth: within a factor of 2."""
    ruler = Ruler(bell, PLACE)
    found = torch.tensor([ruler(GeneratorTape(seed).normal("x", (4, 500, 2)) + 0.3) for seed in range(24)])
    ratio = float(found[:, 1].mean() / found[:, 0].std())
    assert 0.5 < ratio < 2


def test_an_exact_head_with_many_steps_reaches_the_floor() -> None:
    head, size = ExactHead(ring, torch.zeros(CONDITION, dtype=torch.float64)), Size(500, 0, 0, ())
    floor = Ruler(ring, PLACE).floor(500, GeneratorTape(5))
    good, quiet = qualities(head, ring, Definition(100, "one step in", "middle"), size, GeneratorTape(6))
    bad, _ = qualities(head, ring, Definition(10, "full noise", "small"), size, GeneratorTape(6))
    assert abs(good[0] - floor[0]) < 6 * math.hypot(good[1], floor[1]) < bad[0]
    assert abs(good[0] - quiet[0]) < 0.005


# --- acceptance ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variance", ["large", "learned"])
def test_acceptance_is_that_of_the_verifiers(variance: str) -> None:
    """Means of probabilities against the kept drafts of the rules themselves; false alarm 4e-9."""
    pair, definition, rows = pretrained("ring"), Definition(10, "one step in", variance), 1500
    found = accepted(pair, definition, rows, GeneratorTape(1))
    condition = conditions(GeneratorTape(2), rows).unsqueeze(1)
    draft = definition.law(pair.drafter, condition)
    target = definition.law(pair.target, condition.expand(-1, 2, -1))
    tape = GeneratorTape(3)
    block = Draft.chain(draft.sample(tape, "draft"), draft)
    for name, rule in (("whole_path", WholePath()), ("coalescing", Coalescing())):
        kept = rule.verify(block, target, tape).kept.double().mean()
        error = math.hypot(found[name][1], math.sqrt(float(kept * (1 - kept)) / rows))
        assert abs(found[name][0] - float(kept)) < 6 * error


def test_equal_heads_are_always_accepted() -> None:
    head = pretrained("ring").drafter
    found = accepted(Trained(head, head, ring), Definition(10, "full noise", "small"), 50, GeneratorTape(1))
    assert all(value == (1.0, 0.0) for value in found.values())


def test_definitions() -> None:
    every = cells.definitions()
    assert len(set(every)) == len(every) == 32
    assert every[0].schedule.steps == 10 and Definition(10, "one step in", "small").schedule.steps == 9
    condition = torch.zeros(3, CONDITION).double()
    law = Definition(10, "one step in", "learned", last_noise=False).law(pretrained("ring").target, condition)
    assert law.batch_shape == (3,) and law.event_shape == (10, 2) and not law.last_noise


@pytest.mark.parametrize(("steps", "inside"), [(100, 0), (100, 1), (10, 0), (10, 1)])
def test_the_factor_of_the_first_step(steps: int, inside: int) -> None:
    """An error of the predicted noise moves x_{t-1} by this many times itself: measured on the kernels of two heads."""
    definition = Definition(steps, cells.STARTS[inside], "large")
    exact = ExactHead(ring, torch.zeros(CONDITION, dtype=torch.float64))
    value, error = GeneratorTape(1).normal("x", (4, 2)), 1e-4
    laws = [
        definition.law(head, PLACE).kernel.step(definition.schedule.steps, value) for head in (exact, Off(exact, error))
    ]
    moved = (laws[1].mean - laws[0].mean) / error  # type: ignore[attr-defined]
    assert torch.allclose(moved, torch.tensor(-amplified(steps, inside)).double(), rtol=1e-5)
    if (steps, inside) == (100, 0):
        assert amplified(steps, inside) == pytest.approx(316, abs=1)


# --- the choice ------------------------------------------------------------------------------------------------------
def cell(data: str, steps: int, distance: float, accept: float, noise: bool = True) -> Cell:
    return Cell(
        data, Definition(steps, "one step in", "large", noise), (distance, 0.01), {"coalescing": (accept, 0.01)}
    )


def test_the_choice() -> None:
    """The most accepted, of those within two errors of the best on every data set; the best itself may be left."""
    found = [cell("a", 10, 0.20, 0.9), cell("a", 25, 0.12, 0.6), cell("a", 50, 0.10, 0.5)]
    assert best(found).definition.steps == 50
    assert [x.definition.steps for x in as_good(found)] == [25, 50]
    assert recommended(found, ["a"], "coalescing") == found[1].definition
    found += [cell("b", 10, 0.10, 0.9), cell("b", 25, 0.20, 0.6), cell("b", 50, 0.11, 0.1)]
    assert recommended(found, ["a", "b"], "coalescing") == found[2].definition
    found += [cell("c", 10, 0.10, 0.9), cell("c", 25, 0.11, 0.6), cell("c", 50, 0.3, 0.1)]
    assert recommended(found, ["a", "b", "c"], "coalescing") is None


def test_what_the_choice_does_not_decide() -> None:
    """Rivals are the eligible ones within two errors of the difference, .0283 here; one that is too far is none."""
    found = [
        cell("a", 10, 0.10, 0.60),
        cell("a", 25, 0.10, 0.58),
        cell("a", 50, 0.10, 0.50),
        cell("a", 100, 0.50, 0.60),
    ]
    chosen = recommended(found, ["a"], "coalescing")
    assert chosen == found[0].definition
    assert rivals(found, ["a"], "coalescing", chosen) == [found[1].definition]
    assert eligible(found, ["a"], "coalescing") == {item.definition for item in found[:3]}
    assert pooled([(0.2, 0.03), (0.4, 0.04)]) == pytest.approx((0.3, 0.025))
    alone = present_text(found[:1] + found[2:], {"a": (0.01, 0.001)})
    assert "No other of them" in alone and "not decided" in present_text(found, {"a": (0.01, 0.001)})


def present_text(found: list[Cell], floor: dict[str, tuple[float, float]]) -> str:
    return _chosen(found, list(floor), "coalescing", {"a": (0.55, 0.01)})


def test_a_small_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "STEPS", (3, 6))
    size, seed = Size(20, 10, 10, (3,)), count()
    sizes = {"ring": size, "low_rank": size}
    found = [x for name in sizes for x in cells.measured(name, size, seed)]
    found += [*cells.flows("ring", size, seed), *cells.exact("ring", size, seed)]
    study = present(found, cells.floors(sizes, seed), {})
    table = study.tables["Every definition, with standard errors"]
    assert len(table) == 2 * 32 + 2 + 24 and {row["data"] for row in table} == {*sizes, "ring, exact head"}
    assert set(sizes) <= set(datasets()) and len(study.figures) == 2
    silent = [x for x in found if not x.definition.last_noise and "whole_path" in x.accepted]
    assert silent and all(x.accepted["whole_path"] == (0.0, 0.0) for x in silent)
    assert all(path.is_file() for path in write(study, "sampler_definitions", tmp_path, {"seed": "0"}))
