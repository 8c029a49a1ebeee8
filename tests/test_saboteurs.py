"""The planted defects: each has the bias it states, the law it describes, and is seen by the checks that it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import ClassVar

import pytest
import torch
from scipy import stats
from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import GeneratorTape
from verify.audit import finite
from verify.exact import exact_batch, exact_rows
from verify.exact_checks import Evidence, catches, exact_checks, findings, law, panel
from verify.jacobi import Jacobi
from verify.planted import PlantedBlock, PlantedRejection, PlantedSiblings
from verify.policies import greedy, rounded, tempered, top_half, widened
from verify.records import Claim, Defect
from verify.references import bias, references
from verify.residual import residual_law
from verify.scenarios import scenarios
from verify.studies.kill_matrix import ALPHA, MISSES, SEES, UNUSED, _cells, figure_of, rounds_needed, run
from verify.verifier import Verifier, catalog

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give

EVERY = {name: kind for name, kind in catalog("saboteurs").items() if finite(kind.claim)}
PLANTED = {name: kind for name, kind in EVERY.items() if hasattr(kind, "defect")}
PAIRS = references()


def defect_of(name: str) -> Defect:
    found = PLANTED[name].defect  # type: ignore[attr-defined]
    assert isinstance(found, Defect)
    return found


@cache
def evidence(name: str) -> dict[str, Evidence]:
    return panel(PLANTED[name](), defect_of(name).draft_length)


@pytest.mark.parametrize("name", PLANTED)
def test_exactly_the_stated_checks_see_it(name: str) -> None:
    found = catches(findings(evidence(name)))
    assert found and found == defect_of(name).caught_by


@pytest.mark.parametrize("name", PLANTED)
def test_the_stated_biases_are_those_enumerated(name: str) -> None:
    kind, stated = PLANTED[name], defect_of(name)
    for letter, wanted in (("A", stated.bias_a), ("B", stated.bias_b)):
        if kind.claim.level == "round":  # what ``bias`` enumerates is in the evidence already
            assert law(evidence(name)[letter]) == pytest.approx(wanted, abs=1e-9)
        else:
            assert bias(kind(), PAIRS[letter], stated.draft_length) == pytest.approx(wanted, abs=1e-9)
        assert wanted > 1e-5


def test_the_bias_of_a_round_is_the_larger_of_two_contexts() -> None:
    kind = PLANTED["residual_target"]
    for letter, pair in PAIRS.items():
        rows = exact_rows(kind(), pair.target, pair.drafter, pair.contexts[[0, -1]], 2)
        assert bias(kind(), pair, 2) == float(rows.tv.max()) == law(evidence("residual_target")[letter])


@pytest.mark.parametrize("name", EVERY)
def test_a_saboteur_is_lossy_by_its_own_words_and_has_at_most_one_number(name: str) -> None:
    kind = EVERY[name]
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    assert not kind.claim.exact and kind.claim.reference and kind.claim.note
    # Of a loop on few tokens the reference pairs do not show everything; and how columns enter it may be chosen.
    assert issubclass(kind, Jacobi) or name in PLANTED and [field.type for field in fields] in ([], ["float"])
    assert name not in PLANTED or defect_of(name).bug


def test_no_two_saboteurs_have_one_law_on_the_reference_pairs() -> None:
    laws = {name: evidence(name)["B"].rows.law[0] for name in PLANTED if "B" in evidence(name)}
    # A Jacobi rule with a wrong replacement is, for one round, the same rule without a loop.
    alone = {name for name in laws if not issubclass(PLANTED[name], Jacobi)}
    first_round = {name for name in alone if PLANTED[name].claim.level == "round"}
    for one in first_round:
        for other in (name for name in first_round - {one} if laws[name].shape == laws[one].shape):
            assert float((laws[one] - laws[other]).abs().sum()) / 2 > 1e-6, (one, other)


# --- the laws, from formulas --------------------------------------------------------------------------------------


def half(difference: Tensor) -> Tensor:
    return difference.abs().sum(-1, keepdim=True) / 2


def residual_of(target: Tensor, draft: Tensor) -> Tensor:
    return residual_law(Categorical(target), Categorical(draft)).probs


def kept_and(target: Tensor, draft: Tensor, accept: Tensor, instead: Tensor) -> Tensor:
    """Kept drafts, and one law for whatever was refused."""
    kept = draft * accept.clamp(0, 1)
    return kept + (1 - kept.sum(-1, keepdim=True)) * instead


def without(target: Tensor, draft: Tensor, accept: Tensor) -> Tensor:
    """Kept drafts, and the target without the refused token for what was refused."""
    refused = (draft * (1 - accept.clamp(0, 1))).unsqueeze(-1)
    other = target.unsqueeze(-2) * (1 - torch.eye(target.shape[-1]))
    return draft * accept.clamp(0, 1) + (refused * other / other.sum(-1, keepdim=True)).sum(-2)


def overlapping(target: Tensor, draft: Tensor) -> Tensor:
    return torch.minimum(target, draft)


def mode(probs: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]).double()


def drafted(policy: Callable[[Categorical], Categorical]) -> Callable[[Tensor, Tensor], Tensor]:
    """Drafts of another law than the one that ratio and residual read."""

    def found(target: Tensor, draft: Tensor) -> Tensor:
        return kept_and(target, policy(Categorical(draft)).probs, target / draft, residual_of(target, draft))

    return found


def two_siblings(target: Tensor, draft: Tensor) -> Tensor:
    """p_2 = (p - q)+ / TV; the last draw is from p_2 and not from its residual."""
    second = residual_of(target, draft)
    return overlapping(target, draft) + half(target - draft) * kept_and(second, draft, second / draft, second)


def fault(target: Tensor, draft: Tensor, chance: float = 0.01) -> Tensor:
    return (1 - chance) * target + chance * torch.eye(target.shape[-1]).double()[0]


FIRST_TOKEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "always_accept": lambda target, draft: draft,
    "residual_reversed": lambda target, draft: draft,
    "residual_absolute": lambda target, draft: (target + draft) / 2,
    "residual_target": lambda target, draft: overlapping(target, draft) + half(target - draft) * target,
    "residual_softmax": lambda target, draft: (
        overlapping(target, draft) + half(target - draft) * (target - draft).clamp(min=0).softmax(-1)
    ),
    "residual_argmax": lambda target, draft: overlapping(target, draft) + half(target - draft) * mode(target - draft),
    "residual_floor": lambda target, draft: (
        overlapping(target, draft)
        + half(target - draft) * (floor := (target - draft).clamp(min=1e-5)) / floor.sum(-1, keepdim=True)
    ),
    "residual_without_token": lambda target, draft: without(target, draft, target / draft),
    "accept_target_probability": lambda target, draft: kept_and(target, draft, target, residual_of(target, draft)),
    "match_redraw": lambda target, draft: (
        draft * target + (1 - (draft * target).sum(-1, keepdim=True)) * target  # bugs seen as o = q p + (1 - sum q p) p
    ),
    "match_argmax": lambda target, draft: kept_and(target, draft, mode(target), target),
    "greedy_fallback": lambda target, draft: mode(target),
    "ratio_inverted": lambda target, draft: kept_and(target, draft, draft / target, residual_of(target, draft)),
    "ratio_root": lambda target, draft: kept_and(target, draft, (target / draft).sqrt(), residual_of(target, draft)),
    "coin_at_most": lambda target, draft: kept_and(target, draft, target / draft + 2**-9, residual_of(target, draft)),
    "greedy_draft_dense_law": drafted(greedy),
    "top_k_draft_raw_law": drafted(top_half),
    "draft_half_precision": drafted(rounded),
    "draft_temperature": drafted(lambda law: tempered(law, 0.7)),
    "fault_gives_zero": fault,
    "siblings_same_target": lambda target, draft: overlapping(target, draft) + half(target - draft) * target,
    "siblings_last_not_subtracted": two_siblings,
    "processors_on_bonus_only": lambda target, draft: target**0.7 / (target**0.7).sum(-1, keepdim=True),
    "divided_in_place": lambda target, draft: kept_and(
        target, draft, target * (1 - torch.exp(-1 / target)), residual_of(target, draft)
    ),
}
RIGHT_AT_FIRST = {
    "block_token_residual",
    "bonus_from_draft",
    "bonus_previous_row",
    "coin_shared_by_nodes",
    "continues_after_rejection",
    "draft_row_stale",
    "penalty_not_rolled_back",
    "siblings_share_bonus_row",
    "target_row_off_by_one",
    "zeroed_in_place",
}


def ends(letter: str) -> tuple[Tensor, Tensor]:
    """The target's and the drafter's laws (2, V) of the first token in the two contexts of a pair."""
    pair = PAIRS[letter]
    first = pair.contexts[[0, -1], 0]
    return pair.target.table[first], pair.drafter.table[first]


@pytest.mark.parametrize("letter", PAIRS)
@pytest.mark.parametrize("name", FIRST_TOKEN)
def test_the_first_token_has_the_law_of_the_formula(name: str, letter: str) -> None:
    found = evidence(name)[letter].rows.joint[0][:, 0]
    assert torch.allclose(found, FIRST_TOKEN[name](*ends(letter)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", sorted(RIGHT_AT_FIRST))
def test_where_the_first_token_is_right_the_check_of_it_sees_nothing(name: str) -> None:
    assert "first_token" not in defect_of(name).caught_by
    for letter in PAIRS:
        assert torch.allclose(evidence(name)[letter].rows.joint[0][:, 0], ends(letter)[0], rtol=0, atol=1e-14)


# --- shared noise: the closed forms against the noise itself --------------------------------------------------------

RUNS = 200_000


def inverse(probs: Tensor, uniform: Tensor) -> Tensor:
    return torch.searchsorted(probs.cumsum(-1)[:-1].contiguous(), uniform, right=True)


def race_reused(target: Tensor, draft: Tensor, tape: GeneratorTape) -> Tensor:
    noise = tape.race("noise", (RUNS, len(target)))
    x = (noise / draft).argmin(-1)
    left = (target - draft).clamp(min=0)
    other = torch.where(left > 0, noise / left, torch.inf).argmin(-1)
    return torch.where(tape.uniform("coin", (RUNS,)) < target[x] / draft[x], x, other)


def uniform_reused_by_coin(target: Tensor, draft: Tensor, tape: GeneratorTape) -> Tensor:
    uniform = tape.uniform("both", (RUNS,))
    x = inverse(draft, uniform)
    other = tape.categorical("residual", (target - draft).clamp(min=0).expand(RUNS, -1))
    return torch.where(uniform < target[x] / draft[x], x, other)


def coin_reused_by_residual(target: Tensor, draft: Tensor, tape: GeneratorTape) -> Tensor:
    x, coin = inverse(draft, tape.uniform("draft", (RUNS,))), tape.uniform("both", (RUNS,))
    left = (target - draft).clamp(min=0)
    return torch.where(coin < target[x] / draft[x], x, inverse(left / left.sum(), coin))


def noise_divided_into_the_draft(target: Tensor, draft: Tensor, tape: GeneratorTape) -> Tensor:
    label = draft / tape.race("noise", (RUNS, len(target)))
    x = label.argmax(-1)
    ratio = target[x] / label.gather(1, x.unsqueeze(1)).squeeze(1)
    other = tape.categorical("residual", (target - draft).clamp(min=0).expand(RUNS, -1))
    return torch.where(tape.uniform("coin", (RUNS,)) < ratio, x, other)


NOISE = {
    "residual_reuses_race": race_reused,
    "coin_reuses_draft_uniform": uniform_reused_by_coin,
    "residual_reuses_coin": coin_reused_by_residual,
    "divided_in_place": noise_divided_into_the_draft,
}


@pytest.mark.parametrize("name", NOISE)
def test_closed_forms_of_shared_noise_are_what_shared_noise_does(name: str) -> None:
    """The defect run on its noise, 200,000 times, against the law that was enumerated. False alarm 1e-6 each."""
    target, draft = (laws[0] for laws in ends("A"))
    counts = torch.bincount(NOISE[name](target, draft, GeneratorTape(3)), minlength=8).double()
    wanted = RUNS * evidence(name)["A"].rows.joint[0][0, 0]
    assert not bool(counts[wanted < 1e-9].any())
    some = wanted >= 1e-9
    assert float(stats.chisquare(counts[some].numpy(), wanted[some].numpy()).pvalue) > 1e-6
    # It is the defect that is seen: independent noise would have the target's law, which these counts refuse.
    assert float(stats.chisquare(counts.numpy(), (RUNS * target).numpy()).pvalue) < 1e-6


def test_one_uniform_for_all_nodes_keeps_what_the_least_ratio_allows() -> None:
    pair, rows = PAIRS["A"], evidence("coin_shared_by_nodes")["A"].rows
    first = pair.drafter.table[0].unsqueeze(1) * pair.drafter.table[:8]
    ratio = (pair.target.table[0] / pair.drafter.table[0]).unsqueeze(1), pair.target.table[:8] / pair.drafter.table[:8]
    both = (first * torch.minimum(*ratio).clamp(max=1)).sum()
    assert float(rows.kept[0, 1]) == pytest.approx(float(both), abs=1e-14)


@pytest.mark.parametrize("size", [2, 3])
def test_the_law_of_a_batch_in_closed_form_is_the_one_enumerated(size: int) -> None:
    kind, case = PLANTED["draft_rows_permuted"], scenarios((size,))[f"random_first_order/{size}"]
    contexts = case.contexts[[0, -1]]
    rows = exact_batch(kind(), case.target, case.drafter, contexts, 1)
    laws = [Categorical(model.table[contexts[:, 0]]) for model in (case.target, case.drafter)]
    assert torch.allclose(rows.joint[0][:, 0], kind().token_law(*laws), rtol=0, atol=1e-14)  # type: ignore[attr-defined]
    assert float(rows.departure[1].max()) < 1e-14 and float(rows.tv.max()) > 0.1


# --- the parts that defects are planted in, the pairs, the caps ---------------------------------------------------


class WholeRejection(PlantedRejection):
    claim: ClassVar[Claim] = Claim(exact=True, reference="a test")


class WholeBlock(PlantedBlock):
    claim: ClassVar[Claim] = Claim(exact=True, reference="a test")


class WholeSiblings(PlantedSiblings):
    claim: ClassVar[Claim] = Claim(exact=True, reference="a test")


@pytest.mark.parametrize("whole", [WholeRejection(), WholeBlock(), WholeSiblings()])
def test_without_a_defect_the_planted_rules_are_exact(whole: Verifier) -> None:
    assert catches(findings(panel(whole))) == ()


def test_the_reference_pairs_are_as_described() -> None:
    """A: geometric laws of ratio 3^(1/4), reversed, at total variation 1/2. B: noise of 1/2 on normal logits."""
    target, drafter = PAIRS["A"].target.table, PAIRS["A"].drafter.table
    assert torch.allclose(half(target - drafter), torch.full((9, 1), 0.5).double(), rtol=0, atol=1e-15)
    for last in range(8):
        ramp = target[last].roll(-last)
        assert torch.allclose(ramp[1:] / ramp[:-1], torch.full((7,), 3**0.25, dtype=torch.float64), rtol=1e-14, atol=0)
        assert torch.allclose(drafter[last].roll(-last), ramp.flip(0), rtol=0, atol=1e-15)
    distances = half(PAIRS["B"].target.table - PAIRS["B"].drafter.table)
    assert 0.08 < float(distances.min()) < float(distances.mean()) < 0.17 < float(distances.max()) < 0.27
    for pair in PAIRS.values():  # no two contexts have one law, so that rows mixed up show
        assert len(pair.target.table[:-1].unique(dim=0)) == pair.vocab


def test_caps_know_what_is_really_drafted() -> None:
    """One draft: the overlap with the law drawn from. Distinct siblings that are no draws at all: their mass."""
    target, draft = ends("B")
    overlap = overlapping(target, top_half(Categorical(draft)).probs).sum(-1)
    assert torch.allclose(evidence("top_k_draft_raw_law")["B"].rows.overlap, overlap, rtol=0, atol=1e-15)
    best = draft.topk(2, -1).indices
    both = target.gather(-1, best).sum(-1)
    assert torch.allclose(evidence("siblings_top_k_dense_law")["B"].rows.overlap, both, rtol=0, atol=1e-15)


def test_policies_in_their_limits() -> None:
    law = Categorical(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert greedy(law).probs.tolist() == [0, 0, 0, 1]
    assert torch.allclose(top_half(law).probs, torch.tensor([0, 0, 3 / 7, 4 / 7]).double())
    assert torch.equal(tempered(law, 1.0).probs, law.probs) and tempered(law, 1e-3).probs[3] == 1
    assert torch.allclose(widened(law).probs, (law.probs + 0.25) / 2)
    assert 0 < float((rounded(law).probs - law.probs).abs().max()) < 2**-8


# --- the study ------------------------------------------------------------------------------------------------------


def test_rounds_needed_give_nine_times_in_ten() -> None:
    """Against the noncentral chi-square law with noncentrality n w^2."""
    found, wanted = torch.tensor([0.26, 0.24, 0.25, 0.25]).double(), torch.full((4,), 0.25).double()
    n, effect = rounds_needed(found, wanted), float(((found - wanted) ** 2 / wanted).sum())
    bar = stats.chi2.isf(ALPHA, 3)
    assert float(stats.ncx2.sf(bar, 3, n * effect)) == pytest.approx(0.9, abs=1e-4)
    assert rounds_needed(wanted, wanted) == torch.inf


def test_a_row_of_the_matrix_says_what_was_seen_and_what_was_not_asked() -> None:
    rows = {name: _cells(PLANTED[name](), evidence(name), 1000) for name in ("always_accept", "draft_rows_permuted")}
    assert rows["always_accept"]["law"] == rows["always_accept"]["acceptance_counted"] == SEES
    assert rows["always_accept"]["record"] == MISSES and rows["draft_rows_permuted"]["sequence"] == UNUSED
    siblings = _cells(PLANTED["siblings_same_target"](), evidence("siblings_same_target"), 200)
    assert siblings["acceptance_counted"] == UNUSED
    (axes,) = figure_of(rows, 8).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(rows)


@pytest.mark.slow
def test_the_study_says_that_all_are_seen_and_none_is_accused() -> None:
    study = run("quick")
    assert "Each defect is seen by at least one exact check. No check accuses a control." in study.text
    table = study.tables["Saboteur by check"]
    assert {row["saboteur"] for row in table} == set(EVERY)
    assert all(any(row[check] == SEES for check in exact_checks()) for row in table)
