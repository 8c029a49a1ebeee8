"""The tape of streams: the published generator, and draws that do not depend on the rest of the batch."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from distributions.enumeration import EnumerationTape
from distributions.streams import GOLDEN, StreamTape, _mixed
from distributions.tape import RecordingTape, ReplayTape, Tape, earlier


def test_reference_outputs_of_splitmix64() -> None:
    """The first outputs for seed 1234567, as unsigned 64-bit integers (Vigna's splitmix64.c)."""
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    found = _mixed(torch.tensor(1234567) + torch.arange(1, 5) * GOLDEN)
    assert [number % 2**64 for number in found.tolist()] == wanted


def test_constants() -> None:
    """2**64 / golden ratio, rounded to odd."""
    assert abs((GOLDEN % 2**64) / 2**64 - 2 / (1 + math.sqrt(5))) < 1e-15 and GOLDEN % 2 == 1


def drawn(tape: Tape, rows: list[list[int]], site: str = "a") -> dict[int, list[float]]:
    """What each row draws when the batches ``rows`` draw two numbers one after the other."""
    found: dict[int, list[float]] = {}
    for batch in rows:
        for row, values in zip(batch, tape[torch.tensor(batch)].uniform(site, (len(batch), 2)).tolist(), strict=True):
            found.setdefault(row, []).extend(values)
    return found


def test_a_row_draws_the_same_in_any_company_and_order() -> None:
    together = drawn(StreamTape.of(5, 4), [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]])
    uneven = drawn(StreamTape.of(5, 4), [[3, 1], [0, 2], [1, 0], [2], [2, 3, 0, 1], [3]])
    assert together == uneven
    alone = {row: drawn(StreamTape(5, torch.tensor([row])), [[0]] * 3)[0] for row in range(4)}
    assert together == alone
    assert len({tuple(values) for values in together.values()}) == 4


def test_restrictions_compose() -> None:
    tape = StreamTape.of(1, 5)
    some = tape[torch.tensor([4, 2, 0])][torch.tensor([False, True, True])]
    assert some.rows.tolist() == [2, 0]
    whole = StreamTape.of(1, 5).uniform("a", (5,))
    assert some.uniform("a", (2,)).tolist() == whole[[2, 0]].tolist()


def test_a_row_named_twice_draws_twice() -> None:
    once = drawn(StreamTape.of(2, 3), [[0, 1, 2], [0, 2], [2]])
    ragged = StreamTape.of(2, 3)[torch.tensor([0, 0, 1, 2, 2, 2])].uniform("a", (6, 2)).tolist()
    assert once == {0: ragged[0] + ragged[1], 1: ragged[2], 2: ragged[3] + ragged[4] + ragged[5]}
    mixed = StreamTape.of(2, 3)[torch.tensor([2, 0, 2, 1, 0, 2])].uniform("a", (6, 2)).tolist()
    assert once == {0: mixed[1] + mixed[4], 1: mixed[3], 2: mixed[0] + mixed[2] + mixed[5]}


def test_a_row_named_twice_is_enumerated_twice() -> None:
    """All tapes understand a selection that names a row several times."""
    assert earlier(torch.tensor([3, 1, 3, 3, 1, 0])).tolist() == [0, 0, 1, 2, 1, 0]
    tape = EnumerationTape(torch.full((2, 1), -1))
    law = torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]], dtype=torch.float64)
    answers = tape[torch.tensor([0, 0, 1])].categorical("a", law)
    mass = law[0, answers[0]] * law[1, answers[1]]
    assert answers.shape == (3,) and int(answers[2]) == 0
    assert torch.allclose(tape.mass, torch.stack([mass, torch.ones(()).double()]))
    coins = tape[torch.tensor([1, 1, 1])].coin("b", torch.tensor([0.0, 1.0, 0.5]))
    assert coins[:2].tolist() == [False, True] and float(tape.mass[1]) == 0.5
    none = tape[torch.zeros(0, dtype=torch.long)]
    assert none.categorical("c", law[:0]).shape == (0,)


def test_draws_at_once_are_draws_one_by_one() -> None:
    one, other = StreamTape.of(3, 2), StreamTape.of(3, 2)
    whole = one.uniform("a", (2, 3, 2))
    parts = torch.stack([other.uniform("a", (2, 2)) for _ in range(3)], 1)
    assert torch.equal(whole, parts)
    noise = StreamTape.of(3, 2).noise("a", (2, 3, 2)).key()
    assert torch.equal(noise, -torch.log1p(-whole))


def test_sites_and_seeds_are_independent_streams() -> None:
    draws = {
        (seed, site): tuple(StreamTape.of(seed, 3).uniform(site, (3, 4)).flatten().tolist())
        for seed in (0, 1, -1, 2**62)
        for site in ("a", "b", "")
    }
    assert len(set(draws.values())) == len(draws)
    again = StreamTape.of(0, 3)
    again.uniform("b", (3, 9))
    assert tuple(again.uniform("a", (3, 4)).flatten().tolist()) == draws[0, "a"]


@pytest.mark.parametrize("axis", ["rows", "draws", "sites", "seeds"])
def test_uniform_along_every_axis(axis: str) -> None:
    """Kolmogorov and a serial test on pairs of neighbours; false alarm 1e-6 each, eight in all."""
    size = 20_000
    if axis == "rows":
        value = StreamTape.of(0, size).uniform("a", (size,))
    elif axis == "draws":
        value = StreamTape.of(0, 1).uniform("a", (1, size))[0]
    elif axis == "sites":
        value = torch.cat([StreamTape.of(0, 1).uniform(f"site.{place}", (1,)) for place in range(size // 10)])
    else:
        value = torch.cat([StreamTape.of(seed, 1).uniform("a", (1,)) for seed in range(size // 10)])
    assert bool(((value >= 0) & (value < 1)).all())
    assert stats.kstest(value.numpy(), "uniform").pvalue > 1e-6
    pairs = (value[: len(value) // 2 * 2].reshape(-1, 2) * 10).long()
    count = torch.bincount(pairs[:, 0] * 10 + pairs[:, 1], minlength=100)
    assert stats.chisquare(count).pvalue > 1e-6


def test_normals_are_normal_and_finite() -> None:
    value = StreamTape.of(4, 20_000).normal("a", (20_000,))
    assert stats.kstest(value.numpy(), "norm").pvalue > 1e-6  # false alarm 1e-6


def test_normals_are_finite_at_the_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest and the largest uniform there are."""
    ends = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    monkeypatch.setattr(StreamTape, "uniform", lambda *_: ends)
    value = StreamTape.of(0, 2).normal("a", (2,))
    assert bool(torch.isfinite(value).all()) and value[0] < -8 and value[1] > 8


def test_replay_of_a_stream() -> None:
    tape = RecordingTape(StreamTape.of(6, 3))
    first = tape[torch.tensor([2, 0])].categorical("a", torch.ones(2, 5))
    again = ReplayTape(tape.draws)[torch.tensor([2, 0])].categorical("a", torch.ones(2, 5))
    assert torch.equal(first, again)


def test_rows_must_be_the_tapes() -> None:
    with pytest.raises(ValueError, match=r"draws 3 rows on a tape of 2; pass tape\[rows\]"):
        StreamTape.of(0, 2).uniform("a", (3, 1))
    with pytest.raises(ValueError, match="tape of 1"):
        StreamTape.of(0, 2)[torch.tensor([1])].coin("a", torch.ones(2))
    assert StreamTape.of(0, 2)[torch.zeros(0, dtype=torch.long)].uniform("a", (0, 3)).shape == (0, 3)
