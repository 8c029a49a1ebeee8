"""Violations: every kind is named, and what is no violation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from distributions.categorical import Categorical
from tests.trace_checks_under_test import found
from verify.checks.violations import KINDS, Violations
from verify.statistics.trace import Trace


def one_row(kept: list[bool], emitted: list[int], length: int, log_accept: list[float] | None = None) -> Trace:
    """Drafts 0, 1 from laws that favour 0 and 1; the target favours 1 and then 0, excludes 3, and 2 at first."""
    draft = Categorical(torch.tensor([[[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1]]]))
    target = Categorical(torch.tensor([[[0.2, 0.8, 0.0, 0.0], [0.1, 0.8, 0.1, 0.0], [0.4, 0.3, 0.3, 0.0]]]))
    record = [math.log(2 / 7), 0.0] if log_accept is None else log_accept
    return Trace(
        torch.tensor([[0, 1]]), draft, target, torch.tensor([kept]), torch.tensor([emitted]), torch.tensor([length]),
        torch.tensor([-1, 0]), torch.tensor([0]), torch.tensor([record]),
    )  # fmt: skip


VIOLATING: dict[str, Trace] = {
    KINDS[0]: one_row([True, True], [0, 1, 0], 0),
    KINDS[1]: one_row([False, True], [1, 1, 0], 2),
    KINDS[2]: one_row([True, True], [0, 1, 0], 1),
    KINDS[3]: one_row([True, True], [0, 2, 0], 3),
    KINDS[4]: one_row([True, True], [0, 1, 9], 3),
    KINDS[5]: one_row([True, True], [0, 1, 3], 3),
    KINDS[6]: one_row([True, False], [0, 0, 0], 2),
    KINDS[8]: one_row([True, True], [0, 1, 0], 3, [0.5, 0.0]),
    KINDS[9]: one_row([False, False], [0, 0, 0], 1),
}


@pytest.mark.parametrize("kind", VIOLATING)
def test_every_kind_of_violation_is_named(kind: str) -> None:
    answer = found([Violations()], [VIOLATING[kind]], 1e-6)["Violations"]
    assert answer.p_value == 0.0 and answer.rejects and kind in answer.note


def test_what_is_no_violation() -> None:
    for trace in (
        one_row([True, True], [0, 1, 2], 3),
        one_row([True, True], [0, 1, 9], 2),  # no bonus after a whole chain
        one_row([False, False], [1, 9, 9], 1),
    ):
        answer = found([Violations()], [trace], 1e-6)["Violations"]
        assert answer.p_value == 1.0 and answer.note == "none"
    impossible = replace(one_row([True, True], [2, 1, 0], 3), drafted=torch.tensor([[2, 1]]))
    notes = found([Violations()], [impossible], 1e-6)["Violations"].note
    assert KINDS[7] in notes and KINDS[5] in notes
    refused = one_row([False, False], [1, 0, 0], 1, [0.0, 0.0])
    assert KINDS[6] in found([Violations(False)], [refused], 1e-6)["Violations of the record"].note
