"""Noise that is kept: the masses of its zones against closed forms, and its two kinds against each other."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from distributions.cones import _volume, mass
from distributions.distinct import distinct
from distributions.enumeration import EnumerationExploded, EnumerationTape, enumerate_tape
from distributions.noise import Exponentials, Noise, Zones
from distributions.tape import GeneratorTape, Tape
from verify.races import race_match

TINY = 5e-324


def laws(count: int, vocab: int, seed: int, spread: float = 1.0) -> Tensor:
    """Random laws (count, V), the wider apart the larger ``spread``."""
    normal = GeneratorTape(seed).normal("laws", (count, vocab))
    return (3 * spread * normal).softmax(-1)


def bounds(vocab: int, **known: float) -> Tensor:
    """Bounds (V, V) by name: ``at_01=2`` says E_1 >= 2 E_0."""
    found = Zones.free((vocab,)).bound.clone()
    for name, value in known.items():
        found[int(name[-2]), int(name[-1])] = value
    return found


def winners(raced: Tensor, tape: Tape, rows: int) -> Tensor:
    """The winners (rows, M) of one noise, raced under each of the laws (M, V)."""
    noise: Noise = tape.noise("noise", (rows, raced.shape[-1]))
    found = []
    for place, law in enumerate(raced):
        token, noise = noise.winner(law.expand(rows, -1), tape, f"race.{place}")
        found.append(token)
    return torch.stack(found, -1)


def joint(raced: Tensor) -> Tensor:
    """The joint law (V, ..., V) of the winners of one noise, by enumeration."""
    found = torch.zeros((raced.shape[-1],) * len(raced), dtype=torch.float64)
    for _, weight, _, token in enumerate_tape(lambda index, tape: winners(raced, tape, len(index)), 1):
        found.index_put_(tuple(token.T), weight, accumulate=True)
    return found


def goodness(token: Tensor, law: Tensor) -> float:
    """The p-value of Pearson's test of tokens (rows, M) against a law (V, ..., V), rare cells taken together."""
    rows = len(token)
    count = torch.zeros_like(law).index_put(tuple(token.T), torch.ones(rows).double(), accumulate=True).flatten()
    wanted = rows * law.flatten()
    if bool(count[wanted < 1e-9].any()):
        return 0.0  # what cannot happen did
    common = wanted >= 20
    cells = [torch.cat([part[common], part[~common].sum().reshape(1)]) for part in (count, wanted)]
    keep = cells[1] >= 20
    statistic = ((cells[0] - cells[1]) ** 2 / cells[1].clamp(min=1))[keep].sum()
    return float(stats.chi2.sf(float(statistic), int(keep.sum()) - 1))


def same(found: object, wanted: object, tolerance: float = 1e-14) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


# --- masses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [0.0, TINY, 1e-300, 1e-9, 0.3, 1.0, 7.0, 1e9, 1e300])
def test_one_bound(bound: float) -> None:
    """P(E_1 >= b E_0) = 1 / (1 + b), at any vocabulary."""
    for vocab in (2, 3, 5):
        assert math.isclose(float(mass(bounds(vocab, at_01=bound))), 1 / (1 + bound), rel_tol=1e-14)


@pytest.mark.parametrize("first", [1e-300, 1e-5, 0.7, 1.0, 40.0])
@pytest.mark.parametrize("second", [1e-300, 1e-5, 0.7, 1.0, 40.0])
def test_two_bounds_in_a_row(first: float, second: float) -> None:
    """P(E_1 >= a E_0, E_2 >= b E_1) = 1 / ((1 + b) (1 + a (1 + b))): integrate E_2, then E_1, then E_0."""
    wanted = 1 / ((1 + second) * (1 + first * (1 + second)))
    for vocab in (3, 4):
        assert math.isclose(float(mass(bounds(vocab, at_01=first, at_12=second))), wanted, rel_tol=1e-13)


@pytest.mark.parametrize("low", [1e-12, 0.2, 1.0, 3.0])
def test_two_sided_bounds(low: float) -> None:
    """P(a E_0 <= E_1 <= E_0 / c) = 1 / (1 + a) - 1 / (1 + 1 / c), and no mass where they contradict each other."""
    for high in (0.1, 0.9, 1 / low):
        wanted = max(0.0, 1 / (1 + low) - 1 / (1 + 1 / high))
        assert math.isclose(float(mass(bounds(3, at_01=low, at_10=high))), wanted, abs_tol=1e-15)


def test_the_winner_of_one_race_has_its_law() -> None:
    for vocab in (2, 3, 5, 7):
        same(joint(laws(1, vocab, vocab)), laws(1, vocab, vocab)[0])


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("vocab", [2, 3, 4, 5, 6])
def test_two_races_agree_as_often_as_their_formula_says(vocab: int, spread: float) -> None:
    for seed in range(3):
        pair = laws(2, vocab, seed, spread)
        found = joint(pair)
        same(found.diagonal().sum(), race_match(*pair))
        same(found.sum(1), pair[0])
        same(found.sum(0), pair[1])


@pytest.mark.parametrize("vocab", [2, 3, 4, 5])
def test_every_race_of_a_chain_has_its_law(vocab: int) -> None:
    raced = laws(4, vocab, 7, 0.5)
    found = joint(raced)
    same(found.sum(), torch.ones(()).double())
    for place in range(4):
        same(found.movedim(place, 0).flatten(1).sum(1), raced[place])


def test_the_order_of_the_races_does_not_matter() -> None:
    raced = laws(3, 4, 11)
    for order in itertools.permutations(range(3)):
        same(joint(raced[list(order)]), joint(raced).permute(order))


def test_two_tokens_race_like_one_threshold() -> None:
    """E_0 / (E_0 + E_1) is uniform and token 0 wins iff it is below the token's probability: a frozen uniform."""
    levels = torch.tensor([0.1, 0.55, 0.3, 0.55], dtype=torch.float64)
    found = joint(torch.stack([levels, 1 - levels], -1))
    same(found[0, 0, 0, 0], levels.min())
    same(found[1, 1, 1, 1], 1 - levels.max())
    same(found[1, 0, 0, 0], levels[1:].min() - levels[0])
    same(found[:, 0, :, 1].sum(), torch.zeros(()).double())


def test_a_race_repeated_under_one_law_has_one_winner() -> None:
    law = laws(1, 5, 3, 2.0)
    same(joint(law.expand(3, -1)), torch.diag_embed(torch.diag(law[0])).expand(5, 5, 5) * torch.eye(5).unsqueeze(-1))


@pytest.mark.parametrize("vocab", [3, 5])
def test_enumerated_winners_against_sampled_ones(vocab: int) -> None:
    raced, rows = laws(3, vocab, 5, 0.4), 200_000
    token = winners(raced, GeneratorTape(1), rows)
    assert goodness(token, joint(raced)) > 1e-6  # false alarm 1e-6 at each of the two sizes
    assert goodness(token, joint(laws(3, vocab, 6, 0.4))) < 1e-6


# --- noise after the fact --------------------------------------------------------------------------------------------


def test_noise_drawn_after_the_winner_has_the_right_joint_law() -> None:
    """Draw x, then noise given that x won; race it again: as if both races had been run on noise drawn first."""
    first, second = laws(2, 4, 21)

    def run(index: Tensor, tape: EnumerationTape) -> Tensor:
        rows = len(index)
        value = tape.categorical("draft", first.expand(rows, -1))
        noise = tape.noise("noise", (rows, 4)).given(value, first.expand(rows, -1))
        return torch.stack([value, noise.winner(second.expand(rows, -1), tape, "race")[0]], -1)

    found = torch.zeros(4, 4, dtype=torch.float64)
    for _, weight, _, token in enumerate_tape(run, 1):
        found.index_put_(tuple(token.T), weight, accumulate=True)
    same(found, joint(torch.stack([first, second])))


def retold(noise: Exponentials, value: Tensor, law: Tensor) -> float:
    """The p-value of the hypothesis that noise given its winners is standard exponential, over all tokens at once."""
    return float(stats.kstest(noise.given(value, law).value.flatten().numpy(), "expon").pvalue)


def test_sampled_noise_after_the_fact_is_exponential_and_picks_its_winner() -> None:
    """Averaged over winners drawn from their law, the exponentials are as if they had been drawn first."""
    rows, law = 50_000, laws(1, 5, 31)
    tape, probs = GeneratorTape(2), law.expand(rows, -1)
    value = tape.categorical("draft", probs)
    noise = Exponentials(tape.race("noise", (rows, 5)))
    again, _ = noise.given(value, probs).winner(probs, tape, "race")
    assert torch.equal(again, value)
    assert retold(noise, value, probs) > 1e-6  # false alarm 1e-6
    # The two coordinates are independent: Spearman's test, false alarm 1e-6 a pair.
    columns = noise.given(value, probs).value.numpy()
    for one, other in itertools.combinations(range(5), 2):
        assert stats.spearmanr(columns[:, one], columns[:, other]).pvalue > 1e-6
    # A planted bug: winners that do not follow the law they are told to have followed.
    assert retold(noise, tape.categorical("draft", probs.flip(-1)), probs) < 1e-6


def test_sampled_and_enumerated_noise_after_the_fact_agree() -> None:
    rows, (first, second) = 200_000, laws(2, 3, 41)
    tape = GeneratorTape(3)
    value = tape.categorical("draft", first.expand(rows, -1))
    noise = Exponentials(tape.race("noise", (rows, 3))).given(value, first.expand(rows, -1))
    token, _ = noise.winner(second.expand(rows, -1), tape, "race")
    assert goodness(torch.stack([value, token], -1), joint(torch.stack([first, second]))) > 1e-6  # false alarm 1e-6


def test_a_point_mass_leaves_sampled_noise_as_it_is() -> None:
    value = torch.tensor([2, 0, 1])
    noise = Exponentials(GeneratorTape(0).race("noise", (3, 4)))
    told = noise.given(value, torch.nn.functional.one_hot(value, 4).double())
    assert torch.equal(told.value, noise.value)
    assert bool((told.winner(torch.eye(4).double()[value], GeneratorTape(0), "race")[0] == value).all())


# --- edges -----------------------------------------------------------------------------------------------------------


HARD = {
    "zeros": [[0.5, 0.0, 0.5], [0.0, 0.3, 0.7], [1.0, 0.0, 0.0]],
    "disjoint": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]],
    "ties": [[1 / 3, 1 / 3, 1 / 3], [0.25, 0.25, 0.5], [0.5, 0.25, 0.25]],
    "subnormal": [[1.0, TINY, 1e-310], [TINY, 1.0, TINY], [0.5, 0.5, TINY]],
    "extreme": [[1e-300, 1.0, 1e-16], [1.0, 1e-300, 1e-8], [1e-16, 1e-300, 1.0]],
    "near": [[0.2, 0.3, 0.5], [0.2 * (1 + 1e-13), 0.3, 0.5], [math.nextafter(0.2, 1), 0.3, 0.5]],
}


@pytest.mark.parametrize("name", HARD)
def test_hard_laws(name: str) -> None:
    raced = torch.tensor(HARD[name], dtype=torch.float64)
    raced = raced / raced.sum(-1, keepdim=True)
    for order in itertools.permutations(range(3)):
        found = joint(raced[list(order)])
        for place, which in enumerate(order):
            share = found.movedim(place, 0).flatten(1).sum(1)
            same(share, raced[which])
            assert not bool(share[raced[which] == 0].any())
    sampled = winners(raced, GeneratorTape(0), 1000)
    for place in range(3):
        assert bool((raced[place][sampled[:, place]] > 0).all())


weight = st.one_of(st.just(0.0), st.floats(1e-12, 1.0), st.sampled_from([TINY, 1e-300, 1e-16, 1.0]))
row = st.lists(weight, min_size=3, max_size=3).filter(lambda item: sum(item) > 0)


@settings(deadline=None, max_examples=60)
@given(st.lists(row, min_size=2, max_size=3))
def test_generated_laws(rows: list[list[float]]) -> None:
    raced = torch.tensor(rows, dtype=torch.float64)
    raced = raced / raced.sum(-1, keepdim=True)
    found = joint(raced)
    for place, law in enumerate(raced):
        same(found.movedim(place, 0).flatten(1).sum(1), law, 1e-13)
    pair = joint(raced[:2])
    overlap = float(torch.minimum(raced[0], raced[1]).sum())
    assert overlap / (2 - overlap) - 1e-13 <= float(pair.diagonal().sum()) <= overlap + 1e-13


@pytest.mark.parametrize("vocab", [2, 3, 4, 5])
def test_the_integral_over_two_winners_is_the_volume(vocab: int) -> None:
    """Two ways to the mass of a zone of two races: in closed form at any vocabulary, and by cutting the simplex."""
    zones = []
    for seed in range(60):
        zone = Zones.free((vocab,))
        for law in laws(2, vocab, seed, [0.3, 1.0, 4.0][seed % 3]):
            zone = zone.given(torch.tensor((seed + int(law.argmin())) % vocab), law)
        zones.append(zone.bound)
    same(mass(torch.stack(zones)), _volume(torch.stack(zones)), 1e-15)


def test_two_races_on_a_large_vocabulary() -> None:
    """Where the simplex has far too many pieces: against the formula for a common winner, and the two laws."""
    pair = laws(2, 40, 3, 0.5)
    found = joint(pair)
    same(found.diagonal().sum(), race_match(*pair))
    same(found.sum(1), pair[0])
    same(found.sum(0), pair[1])


def test_three_races_on_a_large_vocabulary_are_given_up() -> None:
    with pytest.raises(EnumerationExploded, match="smaller vocabulary"):
        joint(laws(3, 12, 3, 0.1))


def test_a_winner_that_is_certain_has_no_rival() -> None:
    """The same law again, and one whose ratios are as far in the winner's favour: one leaf each, and not two."""
    for law in laws(20, 4, 9):
        for other in (law, law + torch.nn.functional.one_hot(law.argmax(), 4)):
            raced = torch.stack([law, law, other / other.sum()])
            leaves = enumerate_tape(lambda index, tape, raced=raced: winners(raced, tape, len(index)), 1)
            tokens = torch.cat([batch[3] for batch in leaves])
            assert torch.equal(tokens[:, 0], tokens[:, 1])


def test_a_zone_that_exists_by_rounding_only_still_answers() -> None:
    """Two laws that tie in exact arithmetic: the zone left between them has no volume, and any winner will do."""
    zone = Zones(bounds(3, at_12=3.0, at_21=1 / 3 + 1e-16).unsqueeze(0))
    assert float(mass(zone.bound)) < 1e-15
    token, _ = zone.winner(torch.tensor([[0.2, 0.3, 0.5]]).double(), EnumerationTape(torch.full((1, 1), -1)), "race")
    assert int(token) in (0, 1, 2)


def test_races_that_are_not_wanted_decide_nothing() -> None:
    law = laws(2, 3, 51)

    def run(index: Tensor, tape: EnumerationTape) -> tuple[Tensor, Tensor]:
        noise = tape.noise("noise", (len(index), 2, 3))
        wanted = torch.tensor([True, False]).expand(len(index), 2)
        first, noise = noise.winner(law.expand(len(index), 2, 3), tape, "race", wanted)
        return first, noise.key()

    found = [(weight, *result) for _, weight, _, result in enumerate_tape(run, 1)]
    token, key = (torch.cat([item[part] for item in found]) for part in (1, 2))
    assert len(token) == 3 and not bool(token[:, 1].any())
    assert bool((key[:, 1] == torch.eye(3).double().flatten()).all())
    sampled, _ = Exponentials(GeneratorTape(0).race("noise", (9, 3))).winner(
        law[:1].expand(9, -1), GeneratorTape(0), "race", torch.arange(9) < 4
    )
    assert not bool(sampled[4:].any()) and bool(sampled[:4].any())


@pytest.mark.parametrize("tape", [GeneratorTape(0), EnumerationTape(torch.full((2, 1), -1))], ids=["drawn", "zones"])
def test_noises_are_indexed_joined_and_put(tape: Tape) -> None:
    noise = tape.noise("noise", (2, 3, 4))
    noise = noise.given(torch.tensor([[0, 1, 2], [3, 2, 1]]), laws(6, 4, 61).reshape(2, 3, 4))
    whole = noise[:, :2].join([noise[:, 2:]], 1)
    assert torch.equal(whole.key(), noise.key())
    mask = torch.tensor([[True, False, True], [False, False, True]])
    other = tape.noise("noise", (3, 4))
    put = noise.put(mask, other)
    assert torch.equal(put.key()[mask], other.key()) and torch.equal(put.key()[~mask], noise.key()[~mask])
    assert torch.equal(noise.key(), whole.key())  # a value is never changed


def test_distinct_rows() -> None:
    rows = torch.tensor([[1.0, 2.0], [0.0, 1.0], [1.0, 2.0], [2.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    one, group = distinct(rows)
    assert len(one) == 3 and torch.equal(rows[one][group], rows)
    assert group[0] == group[2] and group[1] == group[4] and len(group.unique()) == 3
    many = (GeneratorTape(0).uniform("rows", (20_000, 3)) * 20).floor() / 7
    one, group = distinct(many)
    assert len(one) == len(many.unique(dim=0)) and torch.equal(many[one][group], many)
    assert [len(part) for part in distinct(torch.zeros(0, 4).double())] == [0, 0]


def test_distinct_rows_whose_hashes_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributions.distinct.ODD", 0)  # the hash is now that of the last column alone
    rows = torch.tensor([[1.0, 5.0], [2.0, 5.0], [1.0, 5.0]], dtype=torch.float64)
    one, group = distinct(rows)
    assert len(one) == 2 and torch.equal(rows[one][group], rows)
