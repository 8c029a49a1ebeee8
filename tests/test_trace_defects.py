"""Defects planted in rules on continuous laws: the checks of traces that see them, and those that are silent."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.special import ndtr

from distributions.law import Law
from distributions.tape import Tape
from tests.trace_checks_under_test import RECORD, TOKEN, on_the_line, seen
from verify.planted_gaussian import PlantedThinning
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude
from verify.saboteurs.gaussian_residual_padded import GaussianResidualPadded
from verify.saboteurs.gaussian_residual_target import GaussianResidualTarget
from verify.verifier import Verifier

# Planted defects on continuous laws; each records what it does, so that only its rule is wrong.


@dataclass(frozen=True)
class Scaled(PlantedThinning):
    """min(1, factor p / q)."""

    factor: float = 1.02
    claim: ClassVar[Claim] = Claim(exact=False, reference="a ratio 2 % too large", laws="gaussian")

    def log_accept(self, value: Tensor, target: Law, draft: Law) -> Tensor:
        return (target.log_prob(value) - draft.log_prob(value) + math.log(self.factor)).clamp(max=0)


@dataclass(frozen=True)
class Tempered(PlantedThinning):
    """min(1, (p / q)^power)."""

    power: float = 0.98
    claim: ClassVar[Claim] = Claim(exact=False, reference="a ratio at another temperature", laws="gaussian")

    def log_accept(self, value: Tensor, target: Law, draft: Law) -> Tensor:
        return (self.power * (target.log_prob(value) - draft.log_prob(value))).clamp(max=0)


@dataclass(frozen=True)
class Lifted(PlantedThinning):
    """min(1, p / q + step)."""

    step: float = 0.01
    claim: ClassVar[Claim] = Claim(exact=False, reference="a hundredth added", laws="gaussian")

    def log_accept(self, value: Tensor, target: Law, draft: Law) -> Tensor:
        return ((target.log_prob(value) - draft.log_prob(value)).exp() + self.step).log().clamp(max=0)


@dataclass(frozen=True)
class ReusesDraft(PlantedThinning):
    """The coin's uniform is the one that the draft came from."""

    claim: ClassVar[Claim] = Claim(exact=False, reference="one uniform twice", laws="gaussian")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        log_accept = self.log_accept(draft.value, target[:, : draft.value.shape[1]], draft.law)
        accept = ndtr(draft.value[..., 0]) < log_accept.exp()
        return conclude(draft, target, accept, log_accept, tape, self.replace)


@dataclass(frozen=True)
class SortedReplacements(PlantedThinning):
    """Replacements of the right law, dealt to the refused drafts in order of their ratio."""

    claim: ClassVar[Claim] = Claim(exact=False, reference="coin and residual share noise", laws="gaussian")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        made = super().verify(draft, target, tape)
        rows = torch.nonzero(~made.kept[:, 0]).squeeze(1)
        value, order = made.value.clone(), made.log_accept[rows, 0].argsort()
        value[rows[order], 0] = value[rows, 0].sort(0).values
        return replace(made, value=value)


@dataclass(frozen=True)
class OneCoin(PlantedThinning):
    """One uniform for all rows."""

    claim: ClassVar[Claim] = Claim(exact=False, reference="a coin shared by a batch", laws="gaussian")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        log_accept = self.log_accept(draft.value, target[:, : draft.value.shape[1]], draft.law)
        accept = tape.uniform("accept", (1, log_accept.shape[1])) < log_accept.exp()
        return conclude(draft, target, accept, log_accept, tape, self.replace)


SCALED = (Scaled, Tempered, Lifted)
PLANTED: dict[str, tuple[Verifier, set[str], set[str]]] = {
    # defect: the checks that must see it, and those that must not, at 1e-6
    "scale 1.02": (Scaled(), {"Coin", "AcceptedLength"}, {"ResidualLaw", "Proposal", "Violations", "RowDependence"}),
    "temperature 0.96": (Tempered(0.96), {"Coin"}, {"ResidualLaw", "Proposal", "Violations", "RowDependence"}),
    "plus 0.01": (Lifted(), {"Coin", "AcceptedLength"}, {"ResidualLaw", "Proposal", "Violations", "RowDependence"}),
    "residual is the target": (
        GaussianResidualTarget(), {"Violations", "ResidualLaw", "Branches"},
        {"Coin", "AcceptedLength", "Proposal", "RowDependence"},
    ),
    "residual loop capped at 4": (
        GaussianResidualPadded(4), {"ResidualLaw", "Branches"}, {"Coin", "AcceptedLength", "Proposal", "RowDependence"},
    ),
    "uniform used twice": (ReusesDraft(), {"Coin", "Independence"}, {"ResidualLaw", "Proposal", "Violations"}),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_defects_are_seen_by_the_check_made_for_them(name: str) -> None:
    """And the others are silent: at most 1e-6 a defect to be wrong there. 3 x 10^5 rows where the bias is small."""
    rule, must, not_these = PLANTED[name]
    found_by = seen(
        TOKEN, *(on_the_line(rule, 150_000 if isinstance(rule, SCALED) else 5_000, seed) for seed in (1, 2))
    )
    assert must <= found_by
    assert not not_these & found_by


@pytest.mark.parametrize("rule", [Scaled(), Tempered(), Lifted(), GaussianResidualTarget(), GaussianResidualPadded(4)])
def test_a_record_that_is_honest_hides_the_wrong_coin(rule: Verifier) -> None:
    """Against their own account these coins are right: only the token rule contradicts. False alarm 1e-6."""
    assert "Coin of the record" not in seen(RECORD, on_the_line(rule, 100_000, 3))


def test_noise_shared_by_coin_and_replacement_is_seen_by_independence_alone() -> None:
    """Each of the two has the right law. All ten checks together: 1e-6."""
    assert seen(TOKEN, on_the_line(SortedReplacements(), 20_000, 4)) == {"Independence"}


def test_noise_shared_by_rows_is_seen() -> None:
    """One coin for all rows of a call. Others see it too, since their sums have the variance of independent rows."""
    traces = [on_the_line(OneCoin(), 200, seed) for seed in range(40)]
    assert {"Independence", "RowDependence"} <= seen(TOKEN, *traces)
