"""What every check counts adds up: whoever writes a check in the folder is held to it here, without an edit."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distributions.categorical import Categorical
from distributions.gaussian import Gaussian
from distributions.law import Law
from distributions.tape import GeneratorTape
from verify import checks
from verify.checks import Check, Tally
from verify.checks.coupling import Block
from verify.engine.bounds import PairHistogram
from verify.records import Draft
from verify.references import references
from verify.statistics.learned import learners
from verify.statistics.trace import Trace, Traced
from verify.verifiers.rejection import Rejection

torch.set_num_threads(1)
STEP, ROWS = 50, 600
"""Rows of a call, which no cut divides; and rows in all."""
BY_SHARD = {("Impossible", "expected")}
"""Fields that say what chance does *within* a shard, as their docstrings tell: they add over shards, not over rows."""


class Silent:
    """A tape that is not to be drawn from: what a statistic draws itself depends on where its rows are cut."""

    def __getattr__(self, name: str) -> Any:
        raise LookupError(f"the statistic draws {name} for continuous rows; then its tally depends on the shards")


@dataclass(frozen=True)
class Maker:
    """Something to count: sample and truth of 600 rows, and how to take some of them."""

    sample: Any
    truth: Any

    def part(self, rows: slice) -> tuple[Any, Any]:
        return _some(self.sample, rows), _some(self.truth, rows)


def _some(whole: Any, rows: slice) -> Any:
    if isinstance(whole, Tensor):
        return whole[rows]
    if isinstance(whole, Trace):
        return whole[torch.arange(len(whole))[rows]]
    if isinstance(whole, Block):
        parts = {item.name: getattr(whole, item.name) for item in dataclasses.fields(whole)}
        return Block(**{name: part[rows] if isinstance(part, Tensor) else part for name, part in parts.items()})
    return whole[rows] if isinstance(whole, Law) and whole.batch_shape else whole


def law(dim: int = 3) -> Gaussian:
    return Gaussian(torch.zeros(dim), torch.ones(dim))


def trace(rows: int) -> Maker:
    tape = GeneratorTape(3)
    index = torch.zeros(rows, 3, dtype=torch.long)
    draft, target = law(2)[None][index[:, :2]], Gaussian(torch.ones(2) / 2, torch.ones(2))[None][index]
    block = Draft.chain(draft.sample(tape, "draft"), draft)
    made = Trace.of(block, target, Rejection().verify(block, target, tape))
    return Maker(replace(made, call=torch.arange(rows) // STEP), None)


def trace_of_tokens(rows: int) -> Maker:
    pair = references()["B"]
    made, _ = Traced(Rejection(), pair.target, pair.drafter, 2, rows)(3)
    return Maker(replace(made, call=torch.arange(rows) // STEP), None)


def against_law(rows: int) -> Maker:
    return Maker(GeneratorTape(4).normal("rows", (rows, 3)), law())


def against_rows(rows: int) -> Maker:
    tape = GeneratorTape(5)
    return Maker(tape.normal("rows", (rows, 3)) + 0.1, tape.normal("truth", (rows, 3)))


def tokens(rows: int) -> Maker:
    law = Categorical(GeneratorTape(8).uniform("probs", (rows, 2, 7)))
    return Maker(law.sample(GeneratorTape(7), "tokens"), law)


def beside_blocks(rows: int) -> Maker:
    tape = GeneratorTape(6)
    value, one = tape.normal("value", (rows, 1, 2)), torch.ones(rows, dtype=torch.long)
    kept = tape.coin("kept", torch.full((rows, 1), 0.5))
    label = torch.stack((torch.zeros(rows, dtype=torch.long), torch.arange(rows)), -1)
    accept = -tape.uniform("accept", (rows, 1))
    ours = Block(value, one, kept, label, accept, torch.zeros(rows, dtype=torch.bool))
    moved = tape.coin("moved", torch.full((rows, 1, 1), 0.1))
    return Maker(ours, replace(ours, value=torch.where(moved, value + 1, value), log_accept=1.1 * accept))


MAKERS: tuple[Callable[[int], Maker], ...] = (trace, trace_of_tokens, against_law, tokens, beside_blocks, against_rows)


def classes() -> list[type[Check]]:
    found = []
    for entry in pkgutil.iter_modules(checks.__path__):
        module = import_module(f"{checks.__name__}.{entry.name}")
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Check) and kind.__module__ == module.__name__:
                found += [] if inspect.isabstract(kind) else [kind]
    return found


@cache
def instances() -> tuple[Check, ...]:
    """Every check with the settings it has by itself, and every one that is learned."""
    pilot = against_rows(400)
    absent = () if find_spec("sklearn") else ("classifier",)
    learned = [
        item.fit(pilot.sample, pilot.truth, GeneratorTape(9)) for k, item in learners().items() if k not in absent
    ]
    plain = [kind for kind in classes() if all(_has_default(item) for item in dataclasses.fields(kind))]  # type: ignore[arg-type]
    return (*(kind() for kind in plain), *learned)


def _has_default(item: dataclasses.Field[Any]) -> bool:
    return item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING


def name_of(check: Check) -> str:
    return type(check).__name__ + (" of two samples" if getattr(check, "between", False) else "")


@cache
def maker_of(check: Check) -> Callable[[int], Maker]:
    """The first of the makers whose sample the statistic counts; what it draws itself is not to be needed."""
    reasons = []
    for maker in MAKERS:
        if getattr(check, "between", False) and maker is not against_rows:
            continue
        made = maker(100)
        try:
            if check.statistic(made.sample, made.truth, Silent()).n > 0:  # type: ignore[arg-type]
                return maker
            reasons.append(f"{maker.__name__}: nothing to count")
        except Exception as error:
            reasons.append(f"{maker.__name__}: {type(error).__name__} {error}")
    raise AssertionError(
        f"no maker of tests/test_tallies.py makes a sample that {type(check).__name__} counts; add one there. Tried "
        + "; ".join(reasons)
    )


def count(check: Check, sample: Any, truth: Any) -> Tally:
    return check.statistic(sample, truth, Silent())  # type: ignore[arg-type]


def alike(first: Tally, second: Tally) -> list[str]:
    """The names of the fields in which two tallies differ beyond rounding."""
    found = []
    for item in dataclasses.fields(first):
        one, other = getattr(first, item.name), getattr(second, item.name)
        if (type(first).__name__, item.name) in BY_SHARD:
            continue
        if isinstance(one, Tensor):
            same = one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=1e-9, atol=1e-7)
        elif isinstance(one, float):
            same = one == pytest.approx(other, rel=1e-9, abs=1e-7)
        else:
            same = one == other
        found += [] if same else [item.name]
    return found


def test_every_check_is_here() -> None:
    """A check that needs settings must be learned by a learner of the folder, or be the base of one that is here."""
    missing = [kind.__name__ for kind in classes() if not any(isinstance(check, kind) for check in instances())]
    if not find_spec("sklearn"):
        missing = [name for name in missing if not name.startswith("Classifier")]
    assert not missing, f"{', '.join(missing)}: give defaults to their settings, or a Learner that finds these"
    assert len(instances()) > 20


@pytest.mark.parametrize("check", instances(), ids=name_of)
class TestEveryCheck:
    @settings(max_examples=5, deadline=None, derandomize=True)
    @given(cuts=st.lists(st.integers(1, ROWS // STEP - 1), min_size=2, max_size=2, unique=True).map(sorted))
    def test_counts_add_up(self, check: Check, cuts: list[int]) -> None:
        """merge(count(a), count(b)) is count(a then b), in any grouping and, up to rounding, in any order."""
        made = maker_of(check)(ROWS)
        ends = [0, *(STEP * cut for cut in cuts), ROWS]
        one, two, three = (count(check, *made.part(slice(*pair))) for pair in zip(ends, ends[1:], strict=False))
        whole = count(check, made.sample, made.truth)
        assert whole.n == one.n + two.n + three.n > 0
        assert not alike((one + two) + three, whole)
        assert not alike(one + (two + three), whole)
        assert not alike(three + (one + two), whole)

    def test_state_does_not_grow_and_travels(self, check: Check) -> None:
        """Ten times the rows take the same memory, but for the digits of numbers; a pickle says the same."""
        sizes = []
        for rows in (2 * STEP, 20 * STEP):
            made = maker_of(check)(rows)
            tally = count(check, made.sample, made.truth)
            sizes.append(len(pickle.dumps(tally)))
            assert not alike(pickle.loads(pickle.dumps(tally)), tally)
        assert abs(sizes[1] - sizes[0]) < 300

    def test_the_statistic_travels_and_is_compared_by_value(self, check: Check) -> None:
        """Checks with equal statistics share a pass, also when one of them comes back from another process."""
        again = pickle.loads(pickle.dumps(check.statistic))
        assert again == check.statistic and hash(again) == hash(check.statistic)
        assert dataclasses.is_dataclass(check) and pickle.loads(pickle.dumps(check)).statistic == check.statistic

    def test_the_judgement_is_one_of_the_tally_alone(self, check: Check) -> None:
        made = maker_of(check)(ROWS)
        parts = [count(check, *made.part(rows)) for rows in (slice(0, 300), slice(300, ROWS))]
        apart = check.judge(parts[0] + parts[1], 1e-3)
        together = check.judge(count(check, made.sample, made.truth), 1e-3)
        assert apart.n == together.n and (apart.p_value is None) == (together.p_value is None)
        if apart.p_value is not None and not any(type(parts[0]).__name__ == name for name, _ in BY_SHARD):
            assert apart.p_value == pytest.approx(together.p_value, rel=1e-6, abs=1e-9)
        assert apart.bound is None or 0 <= apart.bound
        assert check.claim.against and check.claim.blind_to and check.claim.level in ("exact", "asymptotic")


def test_a_check_that_no_maker_serves_says_so() -> None:
    class Odd(Check):
        @property
        def statistic(self) -> Any:
            def refuse(*parts: Any) -> Tally:
                raise TypeError("spectra only")

            return refuse

        def judge(self, tally: Any, alpha: float) -> Any:
            raise NotImplementedError

    with pytest.raises(AssertionError, match="no maker .* that Odd counts; add one there.*spectra only"):
        maker_of(Odd())


def test_a_statistic_that_does_not_add_is_found() -> None:
    """The planted error: a mean in place of a sum."""

    @dataclass(frozen=True, eq=False)
    class Mean(Tally):
        level: float

    def mean(rows: Tensor) -> Mean:
        return Mean(len(rows), float(rows.mean()))

    rows = against_law(100).sample
    assert alike(mean(rows[:50]) + mean(rows[50:]), mean(rows)) == ["level"]


def test_pairs_of_columns_add_up_too() -> None:
    made = against_law(ROWS)
    parts: Sequence[Tally] = [PairHistogram()(*made.part(rows), Silent()) for rows in (slice(0, 99), slice(99, ROWS))]
    assert not alike(parts[0] + parts[1], PairHistogram()(made.sample, made.truth, Silent()))
    assert isinstance(made.truth, Law)
