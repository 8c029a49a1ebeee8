"""Traces: tallies of two add up, shards are a source, contexts and single tokens, and what checks of them skip."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.gaussian import Gaussian
from distributions.tape import GeneratorTape
from tests.trace_checks_under_test import RECORD, TOKEN, found, name_of, on_the_line, rounds
from verify.checks import Check
from verify.checks.accepted_length import AcceptedLength
from verify.checks.coin import Coin
from verify.engine import tallied
from verify.references import references
from verify.statistics.trace import Trace, Traced, same
from verify.verifiers.recursive_rejection import RecursiveRejection
from verify.verifiers.rejection import Rejection


def equal(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.allclose(first.double(), second.double(), rtol=1e-10, atol=1e-8)
    return first == pytest.approx(second) if isinstance(first, float) else first == second


@pytest.mark.parametrize("check", {name_of(check): check for check in (*TOKEN, *RECORD)}.values(), ids=name_of)
@pytest.mark.parametrize("kind", ["line", "plane", "tokens", "siblings"])
def test_tallies_of_two_traces_add_up_to_that_of_both(check: Check, kind: str) -> None:
    """Continuous laws draw nothing; tokens are transformed with one half everywhere."""
    if kind in ("line", "plane"):
        first, second = (on_the_line(Rejection(), 300, seed, 1.0, 2, 1 if kind == "line" else 3) for seed in (1, 2))
    else:
        rule = Rejection() if kind == "tokens" else RecursiveRejection()
        first, second = rounds(rule, 300)
    both = first.then(second)
    assert len(both) == 600 and int(both.call.max()) == 1
    apart = check.statistic(first, None, Halves()) + check.statistic(second, None, Halves())
    together = check.statistic(both, None, Halves())
    for item in dataclasses.fields(together):
        assert equal(getattr(apart, item.name), getattr(together, item.name)), item.name
    parts = both[torch.arange(300)], both[torch.arange(300, 600)]
    again = check.statistic(parts[0], None, Halves()) + check.statistic(parts[1], None, Halves())
    for item in dataclasses.fields(together):
        assert equal(getattr(again, item.name), getattr(together, item.name)), item.name


class Halves:
    """A tape of which every uniform is one half, so that it matters not where a trace is cut."""

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        return torch.full(tuple(shape), 0.5, dtype=torch.float64)


def test_a_trace_is_a_source_for_the_engine() -> None:
    pair = references()["A"]
    source = Traced(Rejection(), pair.target, pair.drafter, 2, 500, 2)
    check = AcceptedLength()
    counted = tallied([check.statistic], source, range(4))[check.statistic]
    parts = [check.statistic(source(shard)[0], None, GeneratorTape()) for shard in range(4)]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    assert counted.n == 2000 and torch.equal(counted.total, total.total)  # type: ignore[attr-defined]
    again = source(1)[0]
    assert torch.equal(again.emitted, source(1)[0].emitted) and not torch.equal(again.emitted, source(3)[0].emitted)


def test_checks_state_what_they_are_and_skip_what_they_cannot_see() -> None:
    tree = rounds(RecursiveRejection(), 50)
    for check in (*TOKEN, *RECORD):
        assert check.claim.level in ("exact", "asymptotic") and check.claim.against and check.claim.blind_to
        assert hash(check.statistic) == hash(type(check)(*dataclasses.astuple(check)).statistic)
    skipped = {name for name, item in found(TOKEN, tree, 0.01).items() if item.p_value is None}
    assert skipped == {"Coin", "AcceptedLength", "ResidualLaw", "Independence", "ExcessAcceptance", "Branches"}
    silent = replace(tree[0], log_accept=None)
    assert found([Coin(False)], [silent], 0.01)["Coin of the record"].p_value is None
    with pytest.raises(ValueError, match="different shapes"):
        tree[0].then(rounds(Rejection(), 10)[0])


def test_single_tokens_are_traces() -> None:
    drafted, emitted = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    law = Gaussian(torch.zeros(2, 1), torch.ones(1))
    trace = Trace.single(drafted, emitted, law, law)
    assert trace.kept.tolist() == [[True], [False]] and trace.chain and len(trace) == 2
    assert trace.draft.batch_shape == (2, 1) and trace.target.batch_shape == (2, 2)
    shared = Trace.single(drafted, emitted, law[0], law[0])
    assert shared.draft.batch_shape == (1, 1) and bool(same(shared.emitted[:, 0], emitted).all())
    assert trace.context.tolist() == [[0, -1], [0, -1]]


def test_the_context_of_a_token_is_the_path_that_was_emitted() -> None:
    """Siblings 4, 7, 4 and a child of the second: after 7 the law is column 2, then after the child column 4."""
    drafted = torch.tensor([[4, 7, 4, 1]] * 3)
    law = Categorical(torch.ones(3, 5, 9))
    emitted = torch.tensor([[7, 1, 3, 0, 0], [4, 1, 0, 0, 0], [5, 1, 0, 0, 0]])
    parent, length = torch.tensor([-1, -1, -1, 1]), torch.tensor([3, 2, 2])
    kept = torch.zeros(3, 4, dtype=torch.bool)
    trace = Trace(drafted, law[:, :4], law, kept, emitted, length, parent, torch.zeros(3, dtype=torch.long))
    assert trace.context.tolist() == [[0, 2, 4, -1, -1], [0, 1, -1, -1, -1], [0, -1, -1, -1, -1]]
