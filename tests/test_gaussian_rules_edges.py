"""The Gaussian rules at their edges: far apart and equal laws, rows of a batch, replays, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distributions.categorical import Categorical
from distributions.gaussian import FullGaussian, Gaussian
from distributions.tape import GeneratorTape, RecordingTape, ReplayTape
from tests.gaussian_rules_under_test import (
    CHAINS,
    SIBLINGS,
    Given,
    double,
    draw,
    laws,
    named,
    on_the_line,
    p_values,
)
from verify.records import Draft
from verify.verifier import Verifier, catalog
from verify.verifiers.thorisson import Thorisson

torch.set_num_threads(1)


@pytest.mark.parametrize("rule", [*CHAINS, *SIBLINGS], ids=named)
def test_rows_of_any_distances_do_not_look_at_one_another(rule: Verifier) -> None:
    distance = double([0.0, 1e-3, 0.4, 1.0, 2.5, 40.0])
    place = GeneratorTape(1).normal("place", (6, 3))
    prior = Gaussian(torch.zeros(6, 3, 1), torch.ones(1))
    target = Gaussian(distance.reshape(6, 1, 1).expand(6, 4, 1), torch.ones(1))
    parent = rule.parent(3) if hasattr(rule, "parent") else torch.arange(3) - 1
    together = rule.verify(Draft(place.unsqueeze(-1), prior, parent), target, Given(torch.arange(6)))
    for row in range(6):
        alone = on_the_line(rule, place[[row]], float(distance[row]))
        # A row of one is computed without vector instructions, whose functions differ in the last digit.
        assert torch.allclose(alone.log_accept[0], together.log_accept[row], rtol=1e-12, atol=1e-15)
        length = int(together.length[row])
        assert int(alone.length[0]) == length
        assert torch.allclose(alone.value[0, :length], together.value[row, :length], rtol=0, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 16])
@pytest.mark.parametrize("rule", [*CHAINS, *SIBLINGS], ids=named)
def test_a_thousand_standard_deviations(rule: Any, dim: int) -> None:
    """Nothing is kept, nothing overflows, and the law is the target's (KS: false alarm 1e-8)."""
    pair = laws(dim, 1e3, False)
    _, _, outcome = draw(rule, pair, 2_000, 3)
    assert bool(torch.isfinite(outcome.value).all()) and not bool(outcome.kept.any())
    assert not bool(torch.isnan(outcome.log_accept).any())
    assert min(p_values(pair, outcome.value[:, 0])) > 1e-8
    if hasattr(rule, "acceptance"):
        many = (3,) if hasattr(rule, "parent") else ()
        assert float(rule.acceptance(double(1e3), *many)) == 0.0


@pytest.mark.parametrize("distance", [0.0, 1e-300, 1e-12])
@pytest.mark.parametrize("rule", [*CHAINS, *SIBLINGS], ids=named)
def test_equal_laws_keep_everything(rule: Any, distance: float) -> None:
    """Untouched; a distance of 1e-12 rejects with probability 1e-12 (false alarm 1e-8)."""
    draft, _, outcome = draw(rule, laws(4, distance, True), 2_000, 3)
    if hasattr(rule, "parent"):
        assert bool(outcome.kept.any(1).all()) and outcome.length.tolist() == [2] * 2_000
        assert torch.equal(outcome.value[:, 0], draft.value[outcome.kept])
    else:
        assert bool(outcome.kept.all()) and torch.equal(outcome.value[:, :3], draft.value)
    if hasattr(rule, "acceptance"):
        assert float(rule.acceptance(double(distance), *((3,) if hasattr(rule, "parent") else ()))) == pytest.approx(
            1.0, abs=1e-11
        )


@pytest.mark.parametrize("rule", [*CHAINS, *SIBLINGS, Thorisson()], ids=named)
def test_replay_and_inputs(rule: Verifier) -> None:
    pair = laws(3, 1.0, True)
    draft, target, _ = draw(rule, pair, 200, 3)
    assert isinstance(draft.law, FullGaussian) and isinstance(target, FullGaussian)
    before = [item.clone() for item in (draft.value, draft.law.mean, target.mean, target.scale_tril)]
    tape = RecordingTape(GeneratorTape(2))
    first = rule.verify(draft, target, tape)
    again = rule.verify(draft, target, ReplayTape(tape.draws))
    assert all(
        torch.equal(*pair)
        for pair in zip(before, (draft.value, draft.law.mean, target.mean, target.scale_tril), strict=True)
    )
    assert torch.equal(first.value, again.value) and torch.equal(first.kept, again.kept)
    # Replacements and bonuses are drawn for the rows that need them, and for no other.
    whole = int((first.kept.any(1) if hasattr(rule, "parent") else first.kept.all(1)).sum())
    drawn: dict[str, int] = {}
    for item in tape.draws:
        drawn.setdefault(item.site.split(".")[0], len(item.value))
    assert 0 < whole < 200 and drawn["bonus"] == whole and drawn.get("residual", 200 - whole) == 200 - whole


@pytest.mark.parametrize("rule", [*CHAINS, *SIBLINGS], ids=named)
def test_other_laws_are_refused(rule: Any) -> None:
    parent = rule.parent(2) if hasattr(rule, "parent") else torch.arange(2) - 1
    tokens = Categorical(torch.ones(4, 3, 2))
    with pytest.raises(TypeError, match="needs Gaussian laws and got Categorical; use rejection"):
        rule.verify(Draft(torch.zeros(4, 2).long(), tokens[:, :2], parent), tokens, GeneratorTape(0))
    prior, wide = Gaussian(torch.zeros(4, 2, 3), torch.ones(3)), Gaussian(torch.zeros(4, 3, 3), 2 * torch.ones(3))
    value = torch.zeros(4, 2, 3).double()
    for other in (wide, FullGaussian(wide.mean, 2 * torch.eye(3))):
        with pytest.raises(TypeError, match="one covariance, and theirs differ; use rejection"):
            rule.verify(Draft(value, prior, parent), other, GeneratorTape(0))
    # One covariance written in two ways is one covariance.
    same = FullGaussian(torch.zeros(4, 3, 3), torch.eye(3))
    assert bool(torch.isfinite(rule.verify(Draft(value, prior, parent), same, GeneratorTape(0)).value).all())
    with pytest.raises(ValueError, match="siblings" if hasattr(rule, "parent") else "chain"):
        shape = torch.arange(2) - 1 if hasattr(rule, "parent") else torch.full((2,), -1)
        rule.verify(Draft(value, prior, shape), same, GeneratorTape(0))


@pytest.mark.parametrize("rule", SIBLINGS, ids=named)
def test_siblings_of_different_laws_are_refused(rule: Any) -> None:
    prior = Gaussian(torch.arange(2.0).reshape(1, 2, 1).expand(4, 2, 1), torch.ones(1))
    target = Gaussian(torch.zeros(4, 3, 1), torch.ones(1))
    with pytest.raises(ValueError, match="from the same law"):
        rule.verify(Draft(torch.zeros(4, 2, 1).double(), prior, rule.parent(2)), target, GeneratorTape(0))


def test_every_rule_is_in_the_catalogue_and_says_which_laws_it_serves() -> None:
    found = catalog()
    for rule in [*CHAINS, *SIBLINGS]:
        name = next(name for name, kind in found.items() if kind is type(rule))
        assert rule.claim.exact and found[name].claim.laws == "gaussian"
