"""Checks of traces on the catalog: exact rules are not accused, and saboteurs are seen."""

from __future__ import annotations

from functools import cache

import pytest

from tests.trace_checks_under_test import RECORD, TOKEN, found, on_the_line, rounds, seen
from verify.checks.excess_acceptance import ExcessAcceptance
from verify.checks.independence import Independence
from verify.verifier import Verifier, catalog
from verify.verifiers.block import Block
from verify.verifiers.reflection import Reflection
from verify.verifiers.rejection import Rejection
from verify.verifiers.thorisson import Thorisson


@pytest.mark.parametrize(("delta", "dim"), [(0.5, 1), (0.1, 4), (3.0, 2)])
@pytest.mark.parametrize("rule", [Rejection(), Reflection()], ids=["rejection", "reflection"])
def test_maximal_couplings_are_not_accused(rule: Verifier, delta: float, dim: int) -> None:
    """Of chains of two. Reflection moves the refused draft, so its replacement remembers it. False alarm 1e-6."""
    checks = [Independence(fresh=isinstance(rule, Rejection)), *(c for c in TOKEN if not isinstance(c, Independence))]
    assert not seen(checks, *(on_the_line(rule, 10_000, seed, delta, 2, dim) for seed in (5, 6)))
    if isinstance(rule, Reflection) and dim == 1:
        assert "Independence" in seen([Independence()], on_the_line(rule, 10_000, 5, delta, 2, dim))


def test_work_that_is_lost_is_noted_and_is_no_bias() -> None:
    """Thorisson's rule with eta = 1/2 keeps less than it may. The bound fails with probability 1e-6."""
    answer = found([ExcessAcceptance()], [on_the_line(Thorisson(0.5), 20_000, 7)], 1e-6)["ExcessAcceptance"]
    assert answer.p_value is not None and answer.p_value > 0.5 and "work is lost" in answer.note
    exact = found([ExcessAcceptance()], [on_the_line(Rejection(), 20_000, 7)], 1e-6)["ExcessAcceptance"]
    assert "lost" not in exact.note


EXACT = {
    name: kind
    for name, kind in catalog().items()
    if kind.claim.exact and kind.claim.level == "round" and kind.claim.laws in ("any", "categorical")
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_rules_keep_their_own_record(name: str) -> None:
    """Blocks, siblings, trees, couplings, Jacobi. False alarm 1e-6 each."""
    assert not seen(RECORD, *rounds(EXACT[name](), 5_000))


def test_a_block_rule_is_not_a_token_rule() -> None:
    assert {"Violations", "AcceptedLength"} <= seen(TOKEN, *rounds(Block(), 5_000))


@cache
def kill_table(rows: int) -> dict[str, set[str]]:
    """Every planted defect of a finite vocabulary, and the checks that see it on pair A at 1e-6: ``rows`` rounds, half
    of them second rounds. A rule for chains is held to the token rule, unless it is a block rule; others to the record.
    """
    table = {}
    for name, kind in catalog("saboteurs").items():
        if kind.claim.laws in ("any", "categorical"):
            nodes = kind.defect.draft_length if hasattr(kind, "defect") else 2
            traces = rounds(kind(), rows // 2, nodes=nodes)
            token = traces[0].chain and not name.startswith("block")
            table[name] = seen(TOKEN if token else RECORD, *traces)
    return table


UNSEEN = {
    "block_token_residual": "its residual is wrong by 0.010 in total variation, of tokens late in the block",
    "coin_at_most": "a coin that is heads at 0 differs where a ratio is 0, which is nowhere on A; bias 0.002",
    "draft_half_precision": "a bias of 2e-4",
    "scd_gumbel_tail": "no round is wrong, only sequences of them",
    "scd_stale_label": "no round is wrong given its label, only sequences of them",
    "sjd_half_precision_coin": "a bias of 0.002",
    "sjd_residual_epsilon": "a bias of 1e-6",
    "sjd_unprocessed_label": "no round is wrong given its label, only sequences of them",
}
"""What 20,000 rounds do not show, and why."""


@pytest.mark.slow
def test_which_check_sees_which_saboteur(capsys: pytest.CaptureFixture[str]) -> None:
    """All but a few that 20,000 rounds cannot show."""
    table = kill_table(20_000)
    with capsys.disabled():
        for name, checks in table.items():
            print(f"{name:32s} {', '.join(sorted(checks)) or '-'}")
    assert {name for name, checks in table.items() if not checks} == set(UNSEEN)


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("target_row_off_by_one", "Coin"),
        ("draft_row_stale", "Coin"),
        ("coin_shared_by_nodes", "AcceptedLength"),
        ("coin_reuses_draft_uniform", "Independence"),
        ("residual_target", "ResidualLaw"),
        ("residual_reuses_coin", "Independence"),
        ("residual_argmax", "ResidualLaw"),
        ("residual_floor", "Violations"),
        ("penalty_not_rolled_back", "Violations"),
        ("draft_temperature", "Proposal"),
        ("greedy_draft_dense_law", "Proposal"),
        ("bonus_from_draft", "Martingale"),
        ("bonus_previous_row", "Martingale"),
        ("siblings_same_target", "Martingale"),
        ("siblings_sorted_by_target", "Coin of the record"),
        ("always_accept", "ExcessAcceptance"),
    ],
)
def test_a_saboteur_is_seen_by_the_check_made_for_it(name: str, check: str) -> None:
    kind = catalog("saboteurs")[name]
    traces = rounds(kind(), 10_000, nodes=kind.defect.draft_length)
    assert check in seen(TOKEN if traces[0].chain else RECORD, *traces)
