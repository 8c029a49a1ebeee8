"""Rules that are lossy on purpose: each leaves the target by exactly its closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.gaussian import Gaussian
from distributions.tape import GeneratorTape
from verify.audit import audit
from verify.exact import RoundLaw, conditionals, exact_rows
from verify.records import Draft
from verify.scenarios import Scenario, scenarios
from verify.verifier import Verifier
from verify.verifiers.grouped import Grouped
from verify.verifiers.lenient import Lenient
from verify.verifiers.rejection import Rejection
from verify.verifiers.typical import Typical

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

SCENARIOS = scenarios((2, 3, 5))
RULES: list[Verifier] = [Typical(), Typical(0.3, 0.9), Typical(0.0, 0.0), Grouped(), Grouped(2), Lenient(0.7)]
mass = st.one_of(st.just(0.0), st.floats(1e-3, 1.0), st.sampled_from([5e-324, 1e-17, 0.5, 1.0]))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Target and draft over 2 to 5 tokens, with zeros and ties."""
    vocab = draw(st.integers(2, 5))
    row = st.lists(mass, min_size=vocab, max_size=vocab).filter(lambda item: sum(item) > 0)
    target, draft = (Categorical(torch.tensor(draw(row), dtype=torch.float64)).probs for _ in range(2))
    return target, draft


def round_of(verifier: Verifier, target: Tensor, draft: Tensor) -> RoundLaw:
    """One drafted token, whatever came before, from these laws."""
    models = [Markov(law.expand(len(law) + 1, -1), 1) for law in (target, draft)]
    return exact_rows(verifier, *models, torch.zeros(1, 0, dtype=torch.long), 1)


def laws_of(scenario: Scenario) -> tuple[Categorical, Categorical]:
    """The first token's law in every context, by target and drafter."""
    count, length = scenario.contexts.shape
    found = []
    for model in (scenario.target, scenario.drafter):
        state = model.extend(model.start(count), scenario.contexts, torch.full((count,), length))
        found.append(Categorical(conditionals(model, state, count, 1)[0][:, 0]))
    return found[0], found[1]


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_the_bias_of_a_token_is_its_closed_form(scenario: Scenario) -> None:
    for rule in RULES:
        rows = exact_rows(rule, scenario.target, scenario.drafter, scenario.contexts, 1)
        formula = rule.bias(*laws_of(scenario))  # type: ignore[attr-defined]
        assert torch.allclose(rows.departure[0][:, 0], formula, rtol=0, atol=1e-14)
        assert bool((rows.departure[1] < 1e-14).all())  # the bonus is the target's


@settings(deadline=None, max_examples=20)
@given(pairs())
def test_the_bias_on_generated_laws(laws: tuple[Tensor, Tensor]) -> None:
    target, draft = laws
    for rule in RULES:
        found = float(round_of(rule, target, draft).departure[0])
        assert found == pytest.approx(float(rule.bias(Categorical(target), Categorical(draft))), abs=1e-14)  # type: ignore[attr-defined]


@settings(deadline=None, max_examples=20)
@given(pairs())
def test_bias_is_acceptance_beyond_the_overlap(laws: tuple[Tensor, Tensor]) -> None:
    """The excess certificate (lemma L2): TV >= acceptance - overlap, for any rule. It is attained where the acceptance
    is at least min(1, target / draft) everywhere and the residual is exact, as in grouped acceptance.
    """
    target, draft = laws
    overlap = float(torch.minimum(target, draft).sum())
    for rule in RULES:
        rows = round_of(rule, target, draft)
        assert float(rows.departure[0]) >= float(rows.kept[0, 0]) - overlap - 1e-13
    wide = round_of(Grouped(), target, draft)
    assert float(wide.departure[0]) == pytest.approx(float(wide.kept[0, 0]) - overlap, abs=1e-13)


def test_the_threshold_of_typical_acceptance() -> None:
    """min(epsilon, delta exp(-H)) by numpy, on both sides of where the two meet; the comparison is strict."""
    laws = np.array([[0.25, 0.25, 0.25, 0.25], [0.97, 0.01, 0.01, 0.01], [0.5, 0.5, 0.0, 0.0]])
    for epsilon, delta in ((0.09, 0.3), (0.25, 4.0), (0.5, 0.04), (0.01, 0.3)):
        entropy = -np.array([sum(x * math.log(x) for x in row if x > 0) for row in laws])
        wanted = laws > np.minimum(epsilon, delta * np.exp(-entropy))[:, None]
        assert Typical(epsilon, delta).kept(Categorical(torch.tensor(laws))).tolist() == wanted.tolist()
    assert not bool(Typical(0.25, 4.0).kept(Categorical(torch.tensor(laws)))[0].any())  # 0.25 > 0.25 is false


def test_limits_of_typical_acceptance() -> None:
    target, draft = Categorical(torch.tensor([0.5, 0.3, 0.15, 0.05])), Categorical(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    variation = 1 - float(target.overlap(draft))
    # Everything is typical: the output is the draft. Nothing is: it is the target.
    assert float(Typical(0.0, 0.0).bias(target, draft)) == pytest.approx(variation, abs=1e-15)
    assert float(Typical(1.0, 1e9).bias(target, draft)) == 0.0
    assert float(round_of(Typical(1.0, 1e9), target.probs, draft.probs).tv) < 1e-15
    # Lossy even between equal laws: the typical tokens come with 1 + (1 - P(typical)) times their mass.
    some = float(target.probs[Typical(0.2, 9.0).kept(target)].sum())
    assert 0 < some < 1
    assert float(Typical(0.2, 9.0).bias(target, target)) == pytest.approx(some * (1 - some), abs=1e-15)


@settings(deadline=None, max_examples=20)
@given(pairs())
def test_limits_of_grouped_acceptance(laws: tuple[Tensor, Tensor]) -> None:
    """Width 0 is rejection; the whole vocabulary as one neighbourhood keeps every draft; equal laws have no bias."""
    target, draft = laws
    narrow, plain = round_of(Grouped(0), target, draft), round_of(Rejection(), target, draft)
    assert torch.allclose(narrow.law, plain.law, rtol=0, atol=1e-15)
    assert torch.equal(narrow.kept, plain.kept)
    variation = 1 - float(torch.minimum(target, draft).sum())
    whole = round_of(Grouped(len(target)), target, draft)
    assert float(whole.departure[0]) == pytest.approx(variation, abs=1e-14)
    assert float(Grouped(1).bias(Categorical(target), Categorical(target))) == pytest.approx(0.0, abs=1e-15)


def test_neighbours_end_at_the_edges() -> None:
    law = Categorical(torch.tensor([0.5, 0.25, 0.125, 0.125]))
    assert Grouped(1).neighbours(law).tolist() == [0.75, 0.875, 0.5, 0.25]
    assert Grouped(2).neighbours(law).tolist() == [0.875, 1.0, 1.0, 0.5]


def test_grouped_acceptance_leaves_the_targets_support() -> None:
    """A token to which the target gives no mass comes out, as often as its neighbours lend it to the draft."""
    target, draft = torch.tensor([0.4, 0.0, 0.1, 0.5]).double(), torch.tensor([0.1, 0.7, 0.1, 0.1]).double()
    rows = round_of(Grouped(), target, draft)
    assert float(rows.joint[0][0, 0, 1]) == pytest.approx(0.5, abs=1e-7)  # min(0.7, 0.4 + 0.1)
    assert float(round_of(Typical(), target, draft).joint[0][0, 0, 1]) == 0.0


@pytest.mark.parametrize("rule", [Typical(), Grouped()], ids=lambda rule: type(rule).__name__)
def test_the_audit_flags_them_with_their_bias(rule: Verifier) -> None:
    verdict = audit({"rule": rule}, scenarios((2,)))[0]
    assert verdict.status == "lossy" and verdict.evidence == "exact" and verdict.counterexample is not None
    note = next(note for note in verdict.notes if note.startswith("the closed form of the bias agrees"))
    assert float(note.split(" to ")[1].split()[0]) < 1e-14


@dataclass(frozen=True)
class ForgetsTheEdges(Grouped):
    """Its closed form lets neighbourhoods run round the end of the vocabulary; its acceptance does not."""

    def bias(self, target: Categorical, draft: Categorical) -> Tensor:
        near = sum(target.probs.roll(shift, -1) for shift in range(-self.width, self.width + 1))
        return torch.minimum(draft.probs, near).sum(-1) - target.overlap(draft)  # type: ignore[arg-type]


def test_a_wrong_closed_form_is_seen_by_the_audit() -> None:
    verdict = audit({"rule": ForgetsTheEdges()}, scenarios((3,)))[0]
    note = next(note for note in verdict.notes if note.startswith("the closed form of the bias agrees"))
    assert float(note.split(" to ")[1].split()[0]) > 1e-3


def test_numbers_out_of_range_and_densities_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        Typical(epsilon=-0.1)
    with pytest.raises(ValueError, match="must not be negative"):
        Typical(delta=-0.1)
    with pytest.raises(ValueError, match="width must be 0 or more"):
        Grouped(-1)
    law = Gaussian(torch.zeros(4, 3, 2), torch.ones(2))
    for rule in (Typical(), Grouped()):
        with pytest.raises(TypeError, match="use rejection"):
            rule.verify(Draft.chain(torch.zeros(4, 2, 2).double(), law[:, :2]), law, GeneratorTape(0))
