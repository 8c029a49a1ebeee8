"""Support: rows that occur more than once, across shards, often or in pairs."""

from __future__ import annotations

import torch

from distributions.gaussian import Gaussian
from distributions.tape import GeneratorTape
from verify.checks.support import Repeats, Support, repeats_p_value


def test_repeats_across_shards_are_counted_and_never_too_often() -> None:
    """One value in a hundred is 0: two or more of it in each of 20 shards of 1000 rows, all of them counted."""
    law, check = Gaussian(torch.zeros(1), torch.ones(1)), Support()
    tape, total, most = GeneratorTape(13), None, 0
    for _ in range(20):
        rows = law[None][torch.zeros(1000, dtype=torch.long)].sample(tape, "rows")
        rows[tape.coin("atom", torch.full((1000,), 0.01))] = 0.0
        most += int((rows == 0).sum())
        tally = check.statistic(rows, law, tape)
        total = tally if total is None else total + tally
    assert total is not None and total.repeats.times == most  # type: ignore[attr-defined]
    answer = check.judge(total, 1e-6)
    assert answer.rejects and f"one row occurs {most} times" in answer.note
    table = Repeats(((3, 1), (2, 9))) + Repeats(((2, 9), (2, 4)))
    assert table.counts == ((4, 9), (3, 1), (2, 4))
    wide = Repeats(tuple((2, k) for k in range(16))) + Repeats(((5, 99),))
    assert len(wide.counts) == 16 and wide.times == 5


def test_no_finite_row_at_all() -> None:
    """Of vectors and of numbers, of NaN and of infinities."""
    for dim, value in ((1, float("nan")), (3, float("inf"))):
        law = Gaussian(torch.zeros(dim), torch.ones(dim))
        answer = Support()(torch.full((50, dim), value), law, 1e-6, GeneratorTape(0))
        assert answer.rejects and "50 of 50 rows are not finite" in answer.note


def test_rows_that_come_in_pairs_are_seen_though_none_comes_often() -> None:
    """Every tenth row is its neighbour's copy: no value occurs three times. Two chances of 1e-6."""
    law, tape = Gaussian(torch.zeros(2), torch.ones(2)), GeneratorTape(14)
    rows = law[None][torch.zeros(200_000, dtype=torch.long)].sample(tape, "rows")
    assert not Support()(rows, law, 1e-6, tape).rejects
    rows[1::10] = rows[0::10]
    answer = Support()(rows, law, 1e-6, tape)
    assert answer.rejects and "20000 rows are repeats" in answer.note
    assert repeats_p_value(200_000, 2, 2.0**-22) == 1.0  # by the most frequent value alone it is chance
