"""Races on shared exponentials: what the target's winner is once the draft's are known, and the rules made of it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor

from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.law import Law
from distributions.noise import Zones
from distributions.tape import GeneratorTape, Tape
from verify import races
from verify.couplings import sibling_cap
from verify.exact import exact_rows
from verify.races import list_given, race, race_coupling, race_given, race_match
from verify.records import Claim, Draft, Outcome
from verify.scenarios import scenarios
from verify.verifiers.gumbel_race import GumbelRace
from verify.verifiers.list_matching import ListMatching
from verify.verifiers.sampler_match import SamplerMatch

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

mass = st.one_of(st.just(0.0), st.floats(1e-6, 1.0), st.sampled_from([5e-324, 1e-300, 1e-17, 1.0]))
HARD = [
    ([0.3, 0.0, 1e-310, 0.2, 0.5], [5e-324, 0.3, 0.1, 0.0, 0.6]),
    ([1.0, 0.0, 0.0, 0.0, 0.0], [0.2, 0.2, 0.2, 0.2, 0.2]),
    ([0.0, 0.5, 0.5, 0.0, 0.0], [0.5, 0.0, 0.0, 0.5, 0.0]),
    ([0.1, 0.2, 0.3, 0.2, 0.2], [0.1, 0.2, 0.3, 0.2, 0.2]),
    ([1e-200, 0.5, 1e-8, 0.5, 1e-100], [0.3, 1e-14, 0.4, 0.3, 1e-300]),
    ([0.4, 0.1, 0.2, 0.1, 0.2], [0.2, 0.05, 0.4, 0.2, 0.15]),
]


@st.composite
def pairs(draw: st.DrawFn, low: int = 2, high: int = 5) -> tuple[Tensor, Tensor]:
    """Target and draft, with zeros, ties and masses from 5e-324 to 1."""
    vocab = draw(st.integers(low, high))
    row = st.lists(mass, min_size=vocab, max_size=vocab).filter(lambda item: sum(item) > 0)
    target, draft = (Categorical(double(draw(row))).probs for _ in range(2))
    return target, draft


def double(values: object) -> Tensor:
    """A float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def normal(pair: tuple[list[float], list[float]]) -> tuple[Tensor, Tensor]:
    target, draft = (Categorical(double(part)).probs for part in pair)
    return target, draft


def given_all(target: Tensor, draft: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every block of ``count`` siblings that can be, its probability, and ``list_given`` of it."""
    vocab = len(target)
    values = torch.tensor(list(itertools.product(torch.nonzero(draft > 0).flatten().tolist(), repeat=count)))
    law = list_given(values, target.expand(len(values), vocab), draft.expand(len(values), vocab))
    return values, draft[values].prod(-1), law


@settings(deadline=None, max_examples=60)
@given(pairs(high=2))
def test_race_match_of_two_tokens_over_the_law_of_their_ratio(laws: tuple[Tensor, Tensor]) -> None:
    """E_0 / E_1 has the distribution function t / (1 + t): a grid of it decides both races without a random draw."""
    target, draft = laws
    level = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    exponentials = torch.stack([level / (1 - level), torch.ones_like(level)], -1)
    winners = [race(probs.expand(4000, 2), exponentials) for probs in (target, draft)]
    for probs, winner in zip((target, draft), winners, strict=True):
        assert not bool((probs[winner] == 0).any())
        assert float((winner == 0).double().mean()) == pytest.approx(float(probs[0]), abs=1 / 2000)
    match = float((winners[0] == winners[1]).double().mean())
    assert match == pytest.approx(float(race_match(target, draft)), abs=1 / 1000)


@settings(deadline=None, max_examples=60)
@given(pairs())
def test_race_match_lies_between_its_bounds(laws: tuple[Tensor, Tensor]) -> None:
    target, draft = laws
    overlap, match = float(torch.minimum(target, draft).sum()), float(race_match(target, draft))
    assert overlap / (2 - overlap) - 1e-12 <= match <= overlap + 1e-12


@settings(deadline=None, max_examples=150)
@given(pairs())
def test_the_race_coupling_has_both_laws_and_its_diagonal(laws: tuple[Tensor, Tensor]) -> None:
    target, draft = laws
    joint = race_coupling(target, draft)
    assert bool((joint >= 0).all())
    assert torch.allclose(joint.sum(-1), draft, rtol=0, atol=2e-15)
    assert torch.allclose(joint.sum(-2), target, rtol=0, atol=2e-15)
    assert float(joint.diagonal().sum()) == pytest.approx(float(race_match(target, draft)), abs=2e-15)
    assert not bool((joint[:, target == 0] > 0).any())


@pytest.mark.parametrize("pair", HARD)
def test_the_race_coupling_on_hard_pairs(pair: tuple[list[float], list[float]]) -> None:
    """Every row is a law, also those of tokens that hardly ever win; the pair the other way round is the transpose."""
    target, draft = normal(pair)
    rows = race_given(torch.arange(5), target.expand(5, 5), draft.expand(5, 5))
    assert torch.allclose(rows.sum(-1), torch.ones(5).double(), rtol=0, atol=2e-15)
    assert torch.allclose(race_coupling(target, draft), race_coupling(draft, target).T, rtol=0, atol=2e-15)
    batch = race_coupling(torch.stack([target, draft]), torch.stack([draft, target]))
    assert torch.allclose(batch[1], batch[0].T, rtol=0, atol=2e-15)


def test_the_race_coupling_against_quadrature() -> None:
    """q_i p_j times the integral of dr / D(r)^2 over q_j / p_j < r < q_i / p_i, by scipy."""
    target, draft = normal(HARD[5])
    joint = race_coupling(target, draft)

    def density(ratio: float) -> float:
        return float(torch.maximum(draft, target * ratio).sum()) ** -2

    for i, j in itertools.permutations(range(5), 2):
        low, high = float(draft[j] / target[j]), float(draft[i] / target[i])
        area = integrate.quad(density, low, high, epsabs=1e-13, limit=200)[0] if low < high else 0.0
        assert float(joint[i, j]) == pytest.approx(float(draft[i] * target[j]) * area, abs=1e-10)


class Listens:
    """A tape that answers nothing and keeps the masses it was asked with."""

    masses: Tensor

    def categorical(self, site: str, probs: Tensor) -> Tensor:
        self.masses = probs
        return probs.argmax(-1)


@settings(deadline=None, max_examples=60)
@given(pairs(high=4))
def test_the_race_given_its_draft_against_the_volume_of_cones(laws: tuple[Tensor, Tensor]) -> None:
    """An enumerated noise cuts the simplex up: another way to the same law, with no ratio integrated."""
    target, draft = laws
    tape, vocab = Listens(), len(target)
    for token in torch.nonzero(draft > 1e-6).flatten().tolist():  # a thinner cone has too few digits
        zones = Zones.free((1, vocab)).given(torch.tensor([token]), draft.unsqueeze(0))
        zones.winner(target.unsqueeze(0), tape, "race")
        wanted = tape.masses[0] / tape.masses.sum()
        found = race_given(torch.tensor(token), target, draft)
        assert torch.allclose(draft[token] * found, draft[token] * wanted, rtol=0, atol=1e-13)


def test_races_by_sampling() -> None:
    """The joint law of both winners, of 100 000 races of five tokens."""
    rows = 100_000
    target, draft = double([0.05, 0.3, 0.0, 0.25, 0.4]), double([0.3, 0.1, 0.2, 0.4, 0.0])
    exponentials = GeneratorTape(9).race("race", (rows, 5))
    first, second = race(draft.expand(rows, 5), exponentials), race(target.expand(rows, 5), exponentials)
    _same_law(first * 5 + second, race_coupling(target, draft).flatten())


def _same_law(codes: Tensor, law: Tensor) -> None:
    counts = torch.bincount(codes, minlength=len(law))
    assert not bool((counts[law == 0] > 0).any())
    some = law > 0
    # False alarm 1e-8. The smallest expected count is above 5 in every use.
    assert float(len(codes) * law[some].min()) > 5
    assert stats.chisquare(counts[some].numpy(), len(codes) * law[some].numpy()).pvalue > 1e-8


def test_the_list_by_sampling() -> None:
    """The joint law of two siblings and Y, of 200 000 pairs of races of three tokens."""
    rows, vocab = 200_000, 3
    target, draft = double([0.2, 0.3, 0.5]), double([0.5, 0.3, 0.2])
    exponentials = GeneratorTape(10).race("race", (rows, 2, vocab))
    won = race(draft.expand(rows, 2, vocab), exponentials)
    listed = race(target.expand(rows, vocab), exponentials.amin(1))
    _, chance, law = given_all(target, draft, 2)
    _same_law((won[:, 0] * vocab + won[:, 1]) * vocab + listed, (chance.unsqueeze(-1) * law).flatten())


@settings(deadline=None, max_examples=60)
@given(pairs(), st.integers(1, 3))
def test_the_list_has_the_targets_law(laws: tuple[Tensor, Tensor], count: int) -> None:
    """Averaged over the siblings it is the target; given any of them it is a law; one sibling is the race."""
    target, draft = laws
    values, chance, law = given_all(target, draft, count)
    assert torch.allclose(chance @ law, target, rtol=0, atol=1e-14)
    assert torch.allclose(law.sum(-1), torch.ones(()).double(), rtol=0, atol=1e-14)
    assert bool((law >= 0).all()) and not bool((law[:, target == 0] > 0).any())
    if count == 1:
        some = chance > 1e-290  # below, a ratio of subnormal numbers has few digits, or none
        size = int(some.sum()), len(target)
        wanted = race_given(values[some, 0], target.expand(size), draft.expand(size))
        assert torch.allclose(law[some], wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("pair", HARD)
def test_the_list_on_hard_pairs(pair: tuple[list[float], list[float]], count: int) -> None:
    """Exact to 1e-14, in any order of the siblings."""
    target, draft = normal(pair)
    values, chance, law = given_all(target, draft, count)
    assert torch.allclose(chance @ law, target, rtol=0, atol=1e-14)
    assert torch.allclose(law.sum(-1), torch.ones(()).double(), rtol=0, atol=1e-14)
    turned = list_given(values.flip(-1), target.expand(len(values), 5), draft.expand(len(values), 5))
    assert torch.allclose(turned, law, rtol=0, atol=1e-14)


Exponentials = dict[Fraction, Fraction]
"""A finite sum of exponentials in t: rate -> coefficient."""


def product(one: Exponentials, other: Exponentials) -> Exponentials:
    found: Exponentials = {}
    for (rate, factor), (second, weight) in itertools.product(one.items(), other.items()):
        found[rate + second] = found.get(rate + second, Fraction(0)) + factor * weight
    return found


def passage(low: Fraction, high: Fraction | None, target: list[Fraction], draft: list[Fraction]) -> Exponentials:
    """t times the integral of exp(-t D(v)) over low < v < high (None: no end), with D(v) = sum max(p, q v)."""
    ratios = sorted({p / q for p, q in zip(target, draft, strict=True) if q and p / q > low})
    ends = [low, *(ratio for ratio in ratios if high is None or ratio < high), *([] if high is None else [high])]
    found: Exponentials = {}
    for begin, end in itertools.zip_longest(ends, ends[1:]):
        slope = sum((q for p, q in zip(target, draft, strict=True) if q and p / q <= begin), Fraction(0))
        for place, sign in ((begin, 1), (end, -1)):
            if place is not None and not (end is None and high is not None):
                rate = sum((max(p, q * place) for p, q in zip(target, draft, strict=True)), Fraction(0))
                found[rate] = found.get(rate, Fraction(0)) + sign / slope
    return found


def rational(values: tuple[int, ...], target: list[Fraction], draft: list[Fraction]) -> list[Fraction]:
    """``list_given`` with every product of exponentials multiplied out and integrated, in rational arithmetic."""
    start = [target[token] / draft[token] for token in values]
    alive = [passage(low, None, target, draft) for low in start]
    found = []
    for token, weight in enumerate(target):
        total = Fraction(0)
        for here, low in enumerate(start):
            if token == values[here]:
                rate = sum((max(p, q * low) for p, q in zip(target, draft, strict=True)), Fraction(0))
                term: Exponentials = {rate: 1 / draft[token]}
            else:
                high = weight / draft[token] if draft[token] else None
                term = passage(low, high, target, draft) if high is None or high > low else {}
            for other, survivor in enumerate(alive):
                if other != here:
                    term = product(term, survivor)
            total += sum((factor / rate for rate, factor in term.items()), Fraction(0))
        found.append(weight * total)
    return found


@pytest.mark.parametrize(
    ("target", "draft", "count"),
    [
        ([3, 5, 2], [2, 1, 7], 1),
        ([3, 5, 2], [2, 1, 7], 2),
        ([3, 5, 2], [2, 1, 7], 3),
        ([1, 1, 4, 4], [4, 1, 1, 4], 2),
        ([1, 0, 4, 5], [4, 2, 0, 4], 2),
        ([1, 2, 3, 4], [4, 3, 2, 1], 3),
        ([1, 2, 3, 4, 90], [40, 30, 20, 9, 1], 2),
        ([1, 10**9, 3, 4, 7], [10**8, 1, 20, 9, 1], 3),
    ],
)
def test_the_list_against_rational_arithmetic(target: list[int], draft: list[int], count: int) -> None:
    first, second = ([Fraction(item, sum(part)) for item in part] for part in (target, draft))
    values, chance, law = given_all(double([float(x) for x in first]), double([float(x) for x in second]), count)
    mean = [Fraction(0)] * len(first)
    for block, weight, found in zip(values.tolist(), chance.tolist(), law.tolist(), strict=True):
        wanted = rational(tuple(block), first, second)
        assert sum(wanted) == 1
        chance_of = math.prod((second[token] for token in block), start=Fraction(1))
        mean = [total + chance_of * share for total, share in zip(mean, wanted, strict=True)]
        assert float(chance_of) == pytest.approx(weight, rel=1e-12)
        assert found == pytest.approx([float(share) for share in wanted], abs=1e-13)
    assert mean == first  # that Y has the target's law, proved for this pair


def test_lists_of_many_siblings_are_refused() -> None:
    law = torch.full((1, 2), 0.5, dtype=torch.float64)
    assert float(list_given(torch.zeros(1, 10, dtype=torch.long), law, law).sum()) == pytest.approx(1.0, abs=1e-14)
    with pytest.raises(ValueError, match="at most 10"):
        list_given(torch.zeros(1, 11, dtype=torch.long), law, law)


def test_a_token_that_the_draft_denies_has_a_law_all_the_same() -> None:
    """No draw of the draft's gets here. What the target denies is not emitted even so."""
    target, draft = double([0.5, 0.5, 0.0, 0.0]), double([0.0, 0.5, 0.5, 0.0])
    for token in (0, 3):
        laws = race_given(torch.tensor(token), target, draft), list_given(torch.tensor([token, 1]), target, draft)
        for law in laws:
            assert float(law.sum()) == pytest.approx(1.0, abs=1e-14) and law[2:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("scenario", scenarios((2, 3, 5)).values(), ids=lambda scenario: scenario.name)
def test_the_gumbel_race_keeps_as_often_as_race_match(scenario: object) -> None:
    pair, contexts = (scenario.target, scenario.drafter), scenario.contexts  # type: ignore[attr-defined]
    rows = exact_rows(GumbelRace(), *pair, contexts, 1)
    state = [
        model.extend(model.start(len(contexts)), contexts, torch.full((len(contexts),), contexts.shape[1]))
        for model in pair
    ]
    target, draft = (model.law(one).probs[:, 0] for model, one in zip(pair, state, strict=True))
    assert float(rows.tv.max()) < 1e-14
    assert torch.allclose(rows.acceptance, race_match(target, draft), rtol=0, atol=1e-14)
    overlap = torch.minimum(target, draft).sum(-1)
    assert bool((rows.acceptance >= overlap / (2 - overlap) - 1e-14).all())
    assert bool((rows.acceptance <= overlap + 1e-14).all())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_list_matching_accepts_what_its_law_says(count: int) -> None:
    """Enumerated acceptance = probability that Y is among the siblings; it grows with them, and one is the race."""
    target, draft = normal(HARD[5])
    models = [Markov(law.expand(6, 5), 1) for law in (target, draft)]
    accepted = []
    for size in (1, count):
        values, chance, law = given_all(target, draft, size)
        among = torch.zeros_like(law).scatter(-1, values, 1.0)
        accepted.append(float((chance.unsqueeze(-1) * law * among).sum()))
    rows = exact_rows(ListMatching(), *models, torch.zeros(1, 0, dtype=torch.long), count)
    assert float(rows.tv) < 1e-14
    assert float(rows.acceptance) == pytest.approx(accepted[-1], abs=1e-14)
    assert accepted[0] == pytest.approx(float(race_match(target, draft)), abs=1e-14)
    assert accepted[0] <= accepted[-1] <= float(sibling_cap(target, draft, count)) + 1e-14


# Planted bugs: the enumeration must see each of them.


@dataclass(frozen=True)
class RacesBackwards:
    """Takes the target's winner for the draft's: the conditional law of the pair the other way round."""

    claim: ClassVar[Claim] = Claim(exact=True, reference="a planted bug")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        law = race_given(draft.value, draft.law.probs, target.probs[:, :-1])  # type: ignore[attr-defined]
        return SamplerMatch().verify(draft, Categorical(torch.cat([law, target.probs[:, -1:]], 1)), tape)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class ListsEachOnItsOwn(ListMatching):
    """Races the target once for each sibling, on that sibling's noise alone, and keeps the first that matches."""

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        nodes = draft.value.shape[1]
        law = target[:, :1].probs.expand(-1, nodes, -1)  # type: ignore[attr-defined]
        winner = tape.categorical("bug", race_given(draft.value, law, draft.law.probs))  # type: ignore[attr-defined]
        match = winner == draft.value
        kept = match & (match.long().cumsum(1) == 1)
        value = torch.cat([winner[:, -1:], draft.value], 1)
        value[:, 0] = torch.where(
            kept.any(1), draft.value.gather(1, kept.long().argmax(1, keepdim=True))[:, 0], value[:, 0]
        )
        return Outcome(value, torch.ones(len(value), dtype=torch.long), kept, torch.zeros_like(match).double())


def test_planted_bugs_are_seen() -> None:
    scenario = scenarios((3,))["random_first_order/3"]
    pair, contexts = (scenario.target, scenario.drafter), scenario.contexts
    assert float(exact_rows(RacesBackwards(), *pair, contexts, 2).tv.max()) > 1e-2
    assert float(exact_rows(ListsEachOnItsOwn(), *pair, contexts, 2).tv.max()) > 1e-2
    assert float(exact_rows(ListsEachOnItsOwn(), *pair, contexts, 1).tv.max()) < 1e-14  # one sibling: nothing to choose


def test_a_coarse_rule_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """With steps of 1 in place of 1/6 the mean over the siblings is no longer the target: the checks have teeth."""
    monkeypatch.setattr(races, "STEP", 1.0)
    monkeypatch.setattr(races, "TIMES", torch.exp(torch.arange(-38, 5, dtype=torch.float64)))
    target, draft = normal(HARD[5])
    _, chance, law = given_all(target, draft, 2)
    assert float((chance @ law - target).abs().max()) > 1e-6
