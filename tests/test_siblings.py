"""Rules over siblings: acceptances in closed form, caps by linear programme, and the laws they draft from."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, linprog
from torch import Tensor

from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.gaussian import Gaussian
from distributions.law import Law
from distributions.tape import GeneratorTape, Tape
from verify.couplings import sibling_cap, subset_cap
from verify.exact import RoundLaw, exact_rows
from verify.records import Draft, Outcome
from verify.residual import residual_law
from verify.scenarios import scenarios
from verify.siblings import keep_first, laws_of_siblings, siblings
from verify.verifier import Verifier
from verify.verifiers import k_seq
from verify.verifiers.k_seq import KSeq, division
from verify.verifiers.list_matching import ListMatching
from verify.verifiers.recursive_rejection import RecursiveRejection
from verify.verifiers.recursive_rejection_distinct import RecursiveRejectionDistinct

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

RULES: list[Verifier] = [RecursiveRejection(), RecursiveRejectionDistinct(), KSeq(), ListMatching()]
mass = st.one_of(st.just(0.0), st.floats(1e-3, 1.0), st.sampled_from([5e-324, 1e-300, 1e-17, 0.5, 1.0]))
PAIRS = {
    "spread": ([0.5, 0.3, 0.2], [0.1, 0.2, 0.7]),
    "ties": ([0.4, 0.4, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]),
    "tied ratios": ([0.2, 0.4, 0.4], [0.1, 0.2, 0.7]),
    "zeros": ([0.0, 0.6, 0.4, 0.0], [0.5, 0.0, 0.3, 0.2]),
    "disjoint": ([0.0, 0.3, 0.7], [1.0, 0.0, 0.0]),
    "equal": ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]),
    "uncovered": ([0.5, 0.5, 0.0], [0.5, 0.0, 0.5]),
    "two": ([0.9, 0.1], [0.3, 0.7]),
    "skewed": ([0.97, 0.01, 0.01, 0.01], [0.01, 0.97, 0.01, 0.01]),
}


@st.composite
def pairs(draw: st.DrawFn, high: int = 5) -> tuple[Tensor, Tensor]:
    """Target and draft over 2 to ``high`` tokens, with zeros, ties and masses from 5e-324 to 1."""
    vocab = draw(st.integers(2, high))
    row = st.lists(mass, min_size=vocab, max_size=vocab).filter(lambda item: sum(item) > 0)
    target, draft = (Categorical(torch.tensor(draw(row), dtype=torch.float64)).probs for _ in range(2))
    return target, draft


def pair(name: str) -> tuple[Tensor, Tensor]:
    target, draft = (torch.tensor(part, dtype=torch.float64) for part in PAIRS[name])
    return target, draft


def opening(law: Tensor, seed: int) -> Markov:
    """A first-order model whose first token has this law."""
    vocab = len(law)
    return Markov(torch.cat([Markov.random(vocab, 1, seed).table[:vocab], law.unsqueeze(0)]), 1)


def round_of(verifier: Verifier, target: Tensor, draft: Tensor, count: int) -> RoundLaw:
    """One round from the start of a sequence, whose first token has these laws."""
    start = torch.zeros(1, 0, dtype=torch.long)
    return exact_rows(verifier, opening(target, 1), opening(draft, 2), start, count)


def best(target: Tensor, blocks: list[tuple[int, ...]], masses: list[float]) -> float:
    """The most often that any coupling of a token ~ target with a block of siblings puts it in there."""
    cells = [(block, token) for block in blocks for token in range(len(target))]
    rows = [[float(cell[0] == block) for cell in cells] for block in blocks]
    rows += [[float(cell[1] == token) for cell in cells] for token in range(len(target))]
    found = linprog(
        [-float(token in block) for block, token in cells], A_eq=rows, b_eq=masses + target.tolist(), bounds=(0, None)
    )
    assert found.success
    return -float(found.fun)


def without_replacement(draft: Tensor, block: tuple[int, ...]) -> float:
    """The probability of drawing ``block`` in this order without replacement; uniform where the draft has run out."""
    chance, left, untried = 1.0, draft.tolist(), [1.0] * len(draft)
    for token in block:
        law = left if sum(left) > 0 else untried
        chance *= law[token] / sum(law)
        left[token] = untried[token] = 0.0
    return chance


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", PAIRS)
def test_caps_are_the_optima_of_linear_programmes(name: str, count: int) -> None:
    target, draft = pair(name)
    vocab = len(target)
    blocks = list(itertools.product(range(vocab), repeat=count))
    masses = [float(np.prod(draft[list(block)].numpy())) for block in blocks]
    optimum = best(target, blocks, masses)
    assert float(sibling_cap(target, draft, count)) == pytest.approx(optimum, abs=1e-9)
    values, weights = torch.tensor(blocks).unsqueeze(0), torch.tensor(masses, dtype=torch.float64).unsqueeze(0)
    assert float(subset_cap(target.unsqueeze(0), values, weights)) == pytest.approx(optimum, abs=1e-9)
    if count > vocab:
        return
    blocks = list(itertools.permutations(range(vocab), count))
    masses = [without_replacement(draft, block) for block in blocks]
    optimum = best(target, blocks, masses)
    rows = round_of(RecursiveRejectionDistinct(), target, draft, count)
    assert float(rows.overlap) == pytest.approx(optimum, abs=1e-9)
    # Without replacement the cap is no lower, and the rule stays below it.
    assert optimum >= float(sibling_cap(target, draft, count)) - 1e-9
    assert float(rows.acceptance) <= float(rows.overlap) + 1e-12


@settings(deadline=None, max_examples=40)
@given(pairs(high=4), st.integers(1, 3))
def test_the_best_set_of_tokens_is_a_prefix_by_ratio(laws: tuple[Tensor, Tensor], count: int) -> None:
    """The cap over all sets, one by one, against the cap over prefixes alone."""
    target, draft = laws
    sets = itertools.chain.from_iterable(itertools.combinations(range(len(target)), size) for size in range(5))
    worst = min(1 + float(target[list(some)].sum()) - float(draft[list(some)].sum()) ** count for some in sets)
    assert float(sibling_cap(target, draft, count)) == pytest.approx(min(1.0, worst), abs=1e-14)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", PAIRS)
def test_acceptances_in_closed_form(name: str, count: int) -> None:
    """1 - product of TV(p_k, q), and 1 - (1 - beta)^K with rho from scipy's root finder, against enumeration."""
    target, draft = pair(name)
    left, refused = target.numpy().copy(), 1.0
    for _ in range(count):
        excess = (left - draft.numpy()).clip(min=0)
        refused *= excess.sum()
        left = excess / excess.sum() if excess.sum() > 0 else left

    def beta(rho: float) -> float:
        return float(np.minimum(draft.numpy(), target.numpy() / rho).sum())

    def gap(rho: float) -> float:
        return 1 - (1 - beta(rho)) ** count - rho * beta(rho)

    root = brentq(gap, 1.0, count, xtol=1e-15) if gap(1.0) > 1e-15 and count > 1 else 1.0
    wanted = {RecursiveRejection(): 1 - refused, KSeq(): 1 - (1 - beta(root)) ** count}
    for verifier, acceptance in wanted.items():
        rows = round_of(verifier, target, draft, count)
        assert float(rows.acceptance) == pytest.approx(acceptance, abs=1e-14)
        assert float(rows.kept.sum()) == pytest.approx(acceptance, abs=1e-14)
        formula = verifier.acceptance(Categorical(target), Categorical(draft), count)  # type: ignore[attr-defined]
        assert float(formula) == pytest.approx(acceptance, abs=1e-14)
        assert acceptance <= float(sibling_cap(target, draft, count)) + 1e-14
        if name == "equal":
            assert acceptance == pytest.approx(1.0, abs=1e-14)
        if name == "disjoint":
            assert acceptance == 0.0
        if count == 1:
            assert acceptance == pytest.approx(float(torch.minimum(target, draft).sum()), abs=1e-14)


@settings(deadline=None, max_examples=100)
@given(pairs(), st.integers(1, 8))
def test_the_division_of_k_seq(laws: tuple[Tensor, Tensor], count: int) -> None:
    """rho in [1, K] solves its equation; the rule accepts at least 1 - (1 - 1/K)^K of the cap (SpecTr 2310.15141)."""
    target, draft = (Categorical(law) for law in laws)
    rho = division(target, draft, count)
    kept = torch.minimum(draft.probs, target.probs / rho).sum()
    assert 1 <= float(rho) <= count
    assert float(1 - (1 - kept) ** count) == pytest.approx(float(rho * kept), abs=1e-14)
    # What it keeps of a token is min(rho q, p), so that (p - rho q)+ has just the mass that is refused.
    left = (target.probs - rho * draft.probs).clamp(min=0).sum()
    assert float(left) == pytest.approx(float((1 - kept).clamp(min=0) ** count), abs=1e-13)
    cap = float(sibling_cap(*laws, count))
    found = float(KSeq().acceptance(target, draft, count))
    assert cap * (1 - (1 - 1 / count) ** count) - 1e-13 <= found <= cap + 1e-13


@settings(deadline=None, max_examples=60)
@given(pairs())
def test_more_siblings_never_hurt(laws: tuple[Tensor, Tensor]) -> None:
    target, draft = (Categorical(law) for law in laws)
    for rule in (RecursiveRejection(), KSeq()):
        found = [float(rule.acceptance(target, draft, count)) for count in range(1, 7)]
        assert all(after >= before - 1e-13 for before, after in itertools.pairwise(found))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_rules_are_exact_with_any_number_of_siblings(rule: Verifier, count: int) -> None:
    for name in ("zeros", "ties", "skewed", "two"):
        target, draft = pair(name)
        rows = round_of(rule, target, draft, count)
        assert float(rows.tv) < 1e-14
        assert float(rows.acceptance) <= float(rows.overlap) + 1e-14


def test_tokens_not_tried_are_all_that_is_drawn() -> None:
    rule, law = RecursiveRejectionDistinct(), Categorical(torch.tensor([[[0.5, 0.3, 0.2, 0.0]]], dtype=torch.float64))
    tried = {
        (): [0.5, 0.3, 0.2, 0.0],
        (0,): [0.0, 0.6, 0.4, 0.0],
        (0, 2): [0.0, 1.0, 0.0, 0.0],
        (0, 2, 1): [0.0, 0.0, 0.0, 1.0],  # the drafter has no token left
        (0, 2, 1, 3): [0.5, 0.3, 0.2, 0.0],  # nobody has
    }
    for earlier, wanted in tried.items():
        drawn = rule.drafts(law, torch.tensor([[earlier]]))
        assert isinstance(drawn, Categorical)
        assert drawn.probs[0, 0].tolist() == pytest.approx(wanted, abs=1e-15)
    narrow = rule.drafts(Categorical(torch.tensor([[[1.0, 0.0, 0.0]]])), torch.tensor([[[0]]]))
    assert isinstance(narrow, Categorical) and narrow.probs[0, 0].tolist() == [0.0, 0.5, 0.5]


@pytest.mark.parametrize("scenario", scenarios((3,)).values(), ids=lambda scenario: scenario.name)
def test_as_many_distinct_siblings_as_tokens_are_never_all_refused(scenario: object) -> None:
    """Also where the drafter's support is smaller, and with one sibling more than there are tokens."""
    pair_of = scenario.target, scenario.drafter  # type: ignore[attr-defined]
    for count in (3, 4):
        rows = exact_rows(RecursiveRejectionDistinct(), *pair_of, scenario.contexts, count)  # type: ignore[attr-defined]
        assert float(rows.tv.max()) < 1e-12
        assert torch.allclose(rows.acceptance, torch.ones(()).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_rules_for_siblings_refuse_chains_and_densities(rule: Verifier) -> None:
    name = rule.__module__.rsplit(".", 1)[-1]
    law = Categorical(torch.ones(1, 2, 2))
    with pytest.raises(ValueError, match=f"{name} reads siblings"):
        rule.verify(Draft.chain(torch.zeros(1, 2).long(), law), Categorical(torch.ones(1, 3, 2)), GeneratorTape(0))
    normal = Gaussian(torch.zeros(4, 3, 2), torch.ones(2))
    with pytest.raises(TypeError, match=f"{name} needs Categorical laws and got Gaussian"):
        rule.verify(Draft(torch.zeros(4, 2, 2), normal[:, :2], siblings(2)), normal, GeneratorTape(0))


def test_siblings_without_replacement_refuse_densities() -> None:
    with pytest.raises(TypeError, match="Categorical"):
        RecursiveRejectionDistinct().drafts(Gaussian(torch.zeros(1, 1, 1), torch.ones(1)), torch.zeros(1, 1, 0))


# Planted bugs: the enumeration must see each of them.


@dataclass(frozen=True)
class SortedSiblings(RecursiveRejection):
    """Visits the siblings by falling draft probability, and not as they were drawn."""

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        order = draft.law.log_prob(draft.value).argsort(dim=1, descending=True, stable=True)
        row = torch.arange(len(order)).unsqueeze(-1)
        moved = target[row, torch.cat([torch.zeros_like(order[:, :1]), order + 1], 1)]
        return super().verify(dataclasses.replace(draft, value=draft.value.gather(1, order)), moved, tape)


@dataclass(frozen=True)
class KeepsItsTarget(RecursiveRejection):
    """Tests every sibling against the first target, and draws its residual at the end."""

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        after, prior = laws_of_siblings("bug", draft, target)
        chance = (after[:, :1].log_prob(draft.value) - prior.log_prob(draft.value)).clamp(max=0)
        rest = residual_law(after[:, 0], prior[:, 0])
        return keep_first(draft, after, tape.coin("accept", chance.exp()), chance, rest, tape)


@dataclass(frozen=True)
class ForgetsToRenormalise(RecursiveRejectionDistinct):
    """Draws without replacement and verifies as if with it."""

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        return RecursiveRejection().verify(draft, target, tape)


@pytest.mark.parametrize("bug", [SortedSiblings(), KeepsItsTarget(), ForgetsToRenormalise()])
def test_planted_bugs_are_seen(bug: Verifier) -> None:
    rows = round_of(bug, *pair("spread"), 2)
    assert float(rows.tv) > 1e-2
    assert float(round_of(bug, *pair("spread"), 1).tv) < 1e-14  # one sibling leaves no room for them


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_k_seq_with_another_division_is_seen(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """With rho at either end of [1, K] the kept mass and the residual no longer add up to the target."""
    monkeypatch.setattr(k_seq, "division", lambda target, draft, count: torch.full(target.batch_shape, factor).double())
    assert float(round_of(KSeq(), *pair("spread"), 3).tv) > 1e-2


@pytest.mark.parametrize("count", [2, 3])
def test_sorting_siblings_between_equal_laws_emits_the_likeliest(count: int) -> None:
    """The first sibling visited is always kept, so that the likeliest token comes unless no sibling is it."""
    target, draft = pair("equal")
    wanted = 1 - (1 - 0.5) ** count - 0.5
    assert float(round_of(SortedSiblings(), target, draft, count).tv) == pytest.approx(wanted, abs=1e-14)


def test_log_accept_of_equal_siblings_is_told_once() -> None:
    """Two equal siblings: the second is kept only by a coin of its own, and never by list matching."""
    value, law = torch.tensor([[1, 1]]), Categorical(torch.tensor([[[0.5, 0.5], [0.5, 0.5]]]))
    target = Categorical(torch.tensor([[[0.5, 0.5]] * 3]))
    outcome = ListMatching().verify(Draft(value, law, siblings(2)), target, GeneratorTape(0))
    assert float(outcome.log_accept[0, 1]) == -math.inf and not bool(outcome.kept[0, 1])
