"""Tapes: replay is bit-identical, coins and categoricals respect their edges, enumeration accounts for all mass."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from torch import Tensor

from distributions.enumeration import EnumerationExploded, NotEnumerable, enumerate_tape
from distributions.tape import GeneratorTape, RecordingTape, ReplayError, ReplayTape, Tape, inverse_cdf

JUST_BELOW_ONE = 1.0 - 2.0**-53


def program(tape: Tape) -> list[Tensor]:
    """Every kind of draw, the last two on a subset of the rows."""
    coins = tape.coin("a.coin", torch.tensor([0.2, 0.5, 0.9, 0.5]))
    token = tape.categorical("a.token", torch.arange(1.0, 13.0).reshape(4, 3))
    noise = tape.normal("a.noise", (4, 2))
    race = tape.race("a.race", (4, 3))
    some = torch.tensor([True, False, True, True])
    late = tape[some].uniform("b.late", (3,))
    later = tape[some][torch.tensor([0, 2])].coin("b.later", torch.tensor([0.5, 0.5]))
    return [coins, token, noise, race, late, later]


def test_a_seed_names_one_sequence_of_draws() -> None:
    for one, two in zip(program(GeneratorTape(3)), program(GeneratorTape(3)), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(program(GeneratorTape(3))[2], program(GeneratorTape(4))[2])


def test_replay_is_bit_identical_and_asks_in_order() -> None:
    recording = RecordingTape(GeneratorTape(0))
    first = program(recording)
    assert [draw.site for draw in recording.draws] == ["a.coin", "a.token", "a.noise", "a.race", "b.late", "b.later"]
    for one, two in zip(first, program(ReplayTape(recording.draws)), strict=True):
        assert torch.equal(one, two)


def test_a_replay_is_not_damaged_by_in_place_changes() -> None:
    recording = RecordingTape(GeneratorTape(0))
    original = recording.normal("x", (5,)).clone()
    ReplayTape(recording.draws).normal("x", (5,)).zero_()
    assert torch.equal(ReplayTape(recording.draws).normal("x", (5,)), original)


def test_replay_refuses_another_program() -> None:
    recording = RecordingTape(GeneratorTape(0))
    recording.uniform("x", (2,))
    with pytest.raises(ReplayError, match=r"draw 0 was uniform 'x' \(2,\) and the program now asks for uniform 'y'"):
        ReplayTape(recording.draws).uniform("y", (2,))
    with pytest.raises(ReplayError, match="asks for normal 'x'"):
        ReplayTape(recording.draws).normal("x", (2,))
    with pytest.raises(ReplayError, match=r"asks for uniform 'x' \(3,\)"):
        ReplayTape(recording.draws).uniform("x", (3,))
    replay = ReplayTape(recording.draws)
    replay.uniform("x", (2,))
    with pytest.raises(ReplayError, match="has 1 draws and 'z' asks for one more"):
        replay.coin("z", torch.tensor([0.5]))


def test_coin_is_strict_at_both_edges() -> None:
    prob = torch.tensor([0.0, 1.0]).repeat(50_000)
    coins = GeneratorTape(0).coin("edge", prob)
    assert torch.equal(coins, prob.bool())

    class Fixed(GeneratorTape):
        def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
            return torch.tensor([0.0, JUST_BELOW_ONE], dtype=torch.float64)

    assert Fixed().coin("edge", torch.zeros(2)).tolist() == [False, False]
    assert Fixed().coin("edge", torch.ones(2)).tolist() == [True, True]


def test_generator_draws_have_their_laws() -> None:
    # Four tests at 2.5e-7 each: false alarms at most 1e-6 together.
    tape, size = GeneratorTape(11), 100_000
    assert kstest(tape.uniform("u", (size,)).numpy(), "uniform").pvalue > 2.5e-7
    assert kstest(tape.normal("n", (size,)).numpy(), "norm").pvalue > 2.5e-7
    assert kstest(tape.race("r", (size,)).numpy(), "expon").pvalue > 2.5e-7
    probs = torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)
    count = tape.categorical("c", probs.expand(size, 4)).bincount(minlength=4)
    assert count[1] == 0
    assert chisquare(count[[0, 2, 3]].numpy(), size * probs[[0, 2, 3]].numpy()).pvalue > 2.5e-7


MASS = st.one_of(st.just(0.0), st.floats(5e-324, 1e-300), st.floats(1e-20, 1e-10), st.floats(0.01, 1.0))


@settings(deadline=None, max_examples=300)
@given(
    st.lists(MASS, min_size=1, max_size=8).filter(lambda row: sum(row) > 0),
    st.one_of(st.just(0.0), st.just(JUST_BELOW_ONE), st.just(5e-324), st.floats(0.0, 1.0, exclude_max=True)),
)
def test_categorical_never_returns_an_index_of_no_mass(row: list[float], uniform: float) -> None:
    probs, point = torch.tensor(row, dtype=torch.float64), torch.tensor(uniform, dtype=torch.float64)
    index = int(inverse_cdf(probs, point))
    assert probs[index] > 0
    assert inverse_cdf(probs.expand(2, -1), point.expand(2)).tolist() == [index, index]  # many rows by other means


def test_inverse_cdf_picks_the_interval_that_holds_the_uniform() -> None:
    probs = torch.tensor([0.0, 0.25, 0.0, 0.25, 0.5, 0.0], dtype=torch.float64)
    uniform = torch.tensor([0.0, 0.2499, 0.25, 0.4999, 0.5, JUST_BELOW_ONE], dtype=torch.float64)
    assert inverse_cdf(probs.expand(6, 6), uniform).tolist() == [1, 1, 3, 3, 4, 4]
    assert inverse_cdf(3 * probs.expand(6, 6), uniform).tolist() == [1, 1, 3, 3, 4, 4]


@pytest.mark.parametrize("bad", [[0.0, 0.0], [1.0, -0.1], [1.0, float("nan")], [1.0, float("inf")]])
def test_a_row_that_is_no_law_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="positive sum"):
        GeneratorTape(0).categorical("bad", torch.tensor([bad]))
    with pytest.raises(ValueError, match="'bad'"):
        enumerate_tape(lambda index, tape: tape.categorical("bad", torch.tensor([bad]).expand(len(index), 2)), 1)


def nested(index: Tensor, tape: Tape) -> Tensor:
    """Two columns of tokens; rows whose first is 0 toss a coin, and those that win draw again."""
    weight = torch.tensor([[1.0, 2.0, 3.0], [5.0, 0.0, 1.0]], dtype=torch.float64)[index]
    token = tape.categorical("first", weight.unsqueeze(1).expand(-1, 2, -1))
    extra = torch.zeros(len(index), dtype=torch.long)
    zero = torch.nonzero(token[:, 0] == 0).squeeze(-1)
    won = tape[zero].coin("coin", 0.1 + 0.2 * token[zero, 1].double())
    again = tape[zero][won].categorical("again", torch.ones(int(won.sum()), 3, dtype=torch.float64))
    extra[zero[won]] = 1 + again
    return token[:, 0] * 100 + token[:, 1] * 10 + extra


def truth(weight: list[float]) -> dict[int, float]:
    """The law of ``nested``, by hand."""
    share = [mass / sum(weight) for mass in weight]
    law: dict[int, float] = {}
    for one in range(3):
        for two in range(3):
            win = 0.1 + 0.2 * two if one == 0 else 0.0
            for extra, mass in [(0, 1 - win)] + [(1 + again, win / 3) for again in range(3)]:
                law[one * 100 + two * 10 + extra] = share[one] * share[two] * mass
    return {name: mass for name, mass in law.items() if mass > 0}


@pytest.mark.parametrize("chunk", [1, 7, 65_536])
def test_enumeration_of_a_nested_program_is_exact(chunk: int) -> None:
    found: list[dict[int, float]] = [{}, {}]
    for index, mass, dropped, result in enumerate_tape(nested, 2, chunk=chunk):
        assert not bool(dropped.any())
        for row, weight, name in zip(index.tolist(), mass.tolist(), result.tolist(), strict=True):
            assert name not in found[row]  # every leaf is another history, and here another result
            found[row][name] = weight
    for row, weight in enumerate([[1.0, 2.0, 3.0], [5.0, 0.0, 1.0]]):
        wanted = truth(weight)
        assert found[row].keys() == wanted.keys()
        assert max(abs(found[row][name] - wanted[name]) for name in wanted) < 1e-15
        assert abs(sum(found[row].values()) - 1) < 1e-14


def flips(index: Tensor, tape: Tape) -> Tensor:
    """Tosses until the first tail of every row: unbounded."""
    count = torch.zeros(len(index), dtype=torch.long)
    alive = torch.arange(len(index))
    while len(alive):
        alive = alive[tape[alive].coin("flip", torch.tensor([0.5, 0.8], dtype=torch.float64)[index[alive]])]
        count[alive] += 1
    return count


def test_an_unbounded_loop_reports_the_mass_it_drops() -> None:
    mass, dropped = torch.zeros(2).double(), torch.zeros(2).double()
    geometric = torch.zeros(2, 400, dtype=torch.float64)
    for index, leaf, lost, count in enumerate_tape(flips, 2, min_mass=1e-6):
        mass.index_add_(0, index, leaf)
        dropped.index_add_(0, index, lost)
        geometric.index_put_((index, count), leaf, accumulate=True)
    assert bool((dropped > 0).all()) and bool((dropped < 1e-4).all())
    assert (mass + dropped - 1).abs().max() < 1e-14
    stop = torch.tensor([[0.5], [0.2]], dtype=torch.float64)
    wanted = stop * (1 - stop) ** torch.arange(400)
    assert ((geometric - wanted).clamp(min=0) < 1e-15).all()
    assert ((wanted - geometric).clamp(min=0).sum(-1) - dropped).abs().max() < 1e-14


def test_an_explosion_names_the_site_that_branched() -> None:
    def wide(index: Tensor, tape: Tape) -> Tensor:
        tape.coin("quiet.coin", torch.full((len(index),), 0.5))
        return tape.categorical("loud.token", torch.ones(len(index), 12, 10))

    with pytest.raises(EnumerationExploded, match=r"more than 20000 leaves; site 'loud\.token' branched most"):
        enumerate_tape(wide, 1, max_leaves=20_000)


def test_the_limit_of_leaves_is_sharp() -> None:
    def eight(index: Tensor, tape: Tape) -> Tensor:
        return tape.categorical("x", torch.ones(len(index), 3, 2))

    assert sum(len(index) for index, *_ in enumerate_tape(eight, 1, max_leaves=8)) == 8
    with pytest.raises(EnumerationExploded):
        enumerate_tape(eight, 1, max_leaves=7)


@pytest.mark.parametrize("kind", ["uniform", "normal", "race"])
@pytest.mark.parametrize("subset", [False, True])
def test_continuous_draws_are_not_enumerable(kind: str, subset: bool) -> None:
    def run(index: Tensor, tape: Tape) -> Tensor:
        return getattr(tape[index] if subset else tape, kind)("deep.site", (len(index),))

    with pytest.raises(NotEnumerable, match=r"'deep\.site'"):
        enumerate_tape(run, 2)


def test_a_draw_for_no_rows_is_no_decision() -> None:
    def run(index: Tensor, tape: Tape) -> Tensor:
        none = tape[index[:0]]
        assert none.coin("none", torch.zeros(0)).shape == (0,)
        return none.categorical("none", torch.zeros(0, 2, 3))

    ((_, mass, _, result),) = enumerate_tape(run, 2)
    assert mass.tolist() == [1.0, 1.0] and result.shape == (0, 2)


def test_enumeration_refuses_rows_that_are_not_the_tapes() -> None:
    with pytest.raises(ValueError, match=r"draws 2 rows on a tape of 3; pass tape\[rows\]"):
        enumerate_tape(lambda index, tape: tape.coin("x", torch.full((2,), 0.5)), 3)


def test_all_tapes_are_tapes() -> None:
    tapes: list[object] = [GeneratorTape(0), RecordingTape(GeneratorTape(0)), ReplayTape([])]
    enumerate_tape(lambda index, tape: tapes.append(tape) or tapes.append(tape[index]), 1)  # type: ignore[func-returns-value]
    assert all(isinstance(tape, Tape) for tape in tapes) and len(tapes) == 5
