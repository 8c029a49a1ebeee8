"""The study of blocks, siblings and trees: its rules are the catalogue's, its caps are attained, and it holds them."""

from __future__ import annotations

import pytest
import torch

from verify.scenarios import scenarios
from verify.studies import multidraft
from verify.studies.multidraft import Ledger, chain_caps, rules
from verify.verifier import catalog
from verify.verifiers.block import Block
from verify.verifiers.greedy_block import GreedyBlock
from verify.verifiers.lenient import Lenient
from verify.verifiers.rejection import Rejection

torch.set_num_threads(1)

SCENARIOS = scenarios((3,))


def test_the_rules_are_the_catalogue_sorted_by_shape() -> None:
    known = rules()
    assert {"block", "greedy_block", "rejection"} <= set(known.chain)
    assert {"traversal", "top_down"} <= set(known.tree)
    assert {"recursive_rejection", "k_seq"} <= set(known.siblings)
    together = [*known.chain, *known.siblings, *known.tree]
    assert len(together) == len(set(together)) and set(together) <= set(catalog())
    assert "lenient" not in together and "sjd" not in together


@pytest.mark.parametrize("name", ["random_second_order/3", "zeros_in_both/3", "three_nodes/3", "subnormal/3"])
def test_the_caps_of_a_chain_are_attained(name: str) -> None:
    case = SCENARIOS[name]
    alone, across = chain_caps(case, case.contexts, case.draft_length)
    for rule, cap in ((Block(), alone), (GreedyBlock(), across)):
        kept = Ledger().round(rule, case, case.contexts, case.draft_length).expected_length - 1
        assert torch.allclose(kept, cap, rtol=0, atol=1e-13)
    token = Ledger().round(Rejection(), case, case.contexts, case.draft_length).expected_length - 1
    assert bool((token <= alone + 1e-13).all())


def test_a_rule_beyond_its_cap_is_not_printed() -> None:
    case = SCENARIOS["random_first_order/3"]
    with pytest.raises(ValueError, match="Lenient.* passes a cap by 0.0"):
        Ledger().round(Lenient(), case, case.contexts, 1)


def test_a_small_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two scenarios and short drafts: every table has a row for each and a column for each rule and cap."""
    cases = {name: SCENARIOS[name] for name in ("random_first_order/3", "target_misses_tokens/3")}
    monkeypatch.setattr(multidraft, "scenarios", lambda vocabs: cases)
    monkeypatch.setattr(multidraft, "MOST", {"siblings": 2, "chain": 2, "tree": 3})
    study, known = multidraft.run("quick"), rules()
    chains, decoded, siblings, trees = study.tables.values()
    assert all([row["scenario"] for row in table] == list(cases) for table in study.tables.values())
    assert {*known.chain, "cap, lossless round", "cap, any round"} <= set(chains[0])
    assert set(known.chain) <= set(decoded[0]) and set(known.tree) <= set(trees[0])
    assert {*known.siblings, "cap, independent", "cap, distinct"} <= set(siblings[0])
    assert len(study.figures) == 2 and "greedy" in study.text.lower()
    for row in siblings:
        for name, rule in known.siblings.items():
            assert row[name] <= row["cap, distinct" if hasattr(rule, "drafts") else "cap, independent"] + 1e-12
