"""The controls: rules that were called lossy and are not. No check may accuse them, and a defect in them must show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import GeneratorTape, Tape
from verify.audit import finite
from verify.decode import parents, policy
from verify.exact_checks import Evidence, applies, catches, findings, gather, panel
from verify.peer_checks import peer_checks, sampled
from verify.records import Claim, Draft, Outcome
from verify.references import references
from verify.scenarios import target_misses_tokens
from verify.verifier import Verifier, catalog
from verify.verifiers.gumbel_race import GumbelRace
from verify.verifiers.lenient import Lenient
from verify.verifiers.rejection import Rejection

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

CONTROLS = {name: kind for name, kind in catalog("controls").items() if finite(kind.claim)}
ROWS, ALPHA = 4_000, 1e-6


@cache
def evidence(name: str) -> dict[str, Evidence]:
    return panel(CONTROLS[name]())


def accused(verifier: Any, found: dict[str, Evidence]) -> list[str]:
    """The exact checks that a rule fails, of those it is held to."""
    return [check for check in catches(findings(found)) if applies(check, verifier.claim)]


@pytest.mark.parametrize("name", CONTROLS)
def test_no_exact_check_accuses_a_control(name: str) -> None:
    claim = CONTROLS[name].claim
    assert claim.exact and claim.reference and claim.note
    assert accused(CONTROLS[name](), evidence(name)) == []


@pytest.mark.parametrize("name", CONTROLS)
def test_no_sampled_check_accuses_a_control(name: str) -> None:
    """False alarm 1e-6 for each of 8 tests; up to 2.7 times that where chi-square has few rows a cell."""
    for pair in references().values():
        tape = GeneratorTape(5)
        sample = sampled(CONTROLS[name](), pair, ROWS, tape)
        for check in peer_checks().values():
            found = check(sample, ALPHA, tape)
            assert found.p_value is None or found.p_value > ALPHA, found


@dataclass(frozen=True)
class Spoiled:
    """A control whose target is stirred: one part in a thousand is uniform."""

    control: Verifier

    @property
    def claim(self) -> Claim:
        return self.control.claim

    def parent(self, nodes: int) -> Tensor:
        return parents(self.control, nodes)

    def drafts(self, law: Law, earlier: Tensor) -> Law:
        return policy(self.control)(law, earlier)

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        assert isinstance(target, Categorical)
        return self.control.verify(draft, Categorical(0.999 * target.probs + 0.001 / target.probs.shape[-1]), tape)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_with_a_small_defect_is_accused(name: str) -> None:
    spoiled, pair = Spoiled(CONTROLS[name]()), target_misses_tokens(3)
    found = {"C": gather(spoiled, pair, pair.contexts, 3)}
    assert {"support", "sequence"} <= set(accused(spoiled, found))


def test_sampled_checks_see_a_gross_defect() -> None:
    """Lenience 0.5 on pair A: all four reject, with p-values below 1e-20."""
    pair, tape = references()["A"], GeneratorTape(5)
    sample = sampled(Lenient(0.5), pair, ROWS, tape)
    for check in peer_checks().values():
        found = check(sample, ALPHA, tape)
        assert found.p_value is not None and found.p_value < 1e-6, found


# --- why each of them looked lossy ----------------------------------------------------------------------------------


def acceptance(verifier: Verifier, letter: str = "A") -> Tensor:
    pair = references()[letter]
    return gather(verifier, pair, pair.contexts[[0, -1]]).rows.acceptance


def test_one_round_of_greedy_block_has_the_wrong_law() -> None:
    """So a test of single rounds would accuse it: the claim is about sequences, and there it is exact."""
    found = findings(evidence("greedy_block_rounds"))
    assert found["law"] > 1e-2 and found["sequence"] < 1e-12


@pytest.mark.parametrize("name", ["k_seq_siblings", "recursive_rejection_siblings"])
def test_siblings_accept_more_than_the_overlap_and_no_more_than_their_cap(name: str) -> None:
    rows = evidence(name)["A"].rows
    assert bool((rows.acceptance > 0.5 + 0.05).all())  # 1 - TV is 1/2 on this pair
    assert bool((rows.acceptance <= rows.overlap + 1e-12).all())


def test_fresh_noise_costs_acceptance_and_nothing_else() -> None:
    """Independent noise: sum of p q in place of the race's match; sum p q = 1 / sum of 8 terms, about 0.1 here."""
    pair, rows = references()["A"], evidence("fresh_noise_race")["A"].rows
    first = pair.contexts[[0, -1], 0]
    wanted = (pair.target.table[first] * pair.drafter.table[first]).sum(-1)
    assert torch.allclose(rows.acceptance, wanted, rtol=0, atol=1e-14)
    assert bool((acceptance(GumbelRace()) > 3 * rows.acceptance).all())


def test_the_point_mass_rule_accepts_less_than_rejection_on_dense_drafts() -> None:
    assert bool((evidence("point_mass_dense")["A"].rows.acceptance < acceptance(Rejection()) - 0.1).all())


def test_supports_of_drafts_are_smaller_and_larger_than_the_targets() -> None:
    narrow, wide = (CONTROLS[name]() for name in ("rejection_narrow_draft", "rejection_wide_draft"))
    law, earlier = Categorical(torch.tensor([[[0.5, 0.3, 0.2, 0.0]]])), torch.zeros(1, 1, 0)
    assert [int((policy(kind)(law, earlier).probs > 0).sum()) for kind in (narrow, wide)] == [2, 4]  # type: ignore[attr-defined]
