"""A wrong law is traced to the rule it belongs to, and to none where it belongs to none; and to where it departs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from distributions.tape import Tape
from tests.test_judge import BUGS, decoder, plain, rule
from tests.verifiers_under_test import point_mass, sampler_match, torch_item
from verify import check_decoder, check_verifier
from verify.decode import parents, policy
from verify.diagnosis.departure import departure
from verify.diagnosis.nearest import UNKNOWN, diagnose, diagnose_decoder
from verify.diagnosis.rule_law import decoded_beside, joint_law, laid_beside, law_of_verifier, sequence_laws
from verify.diagnosis.suspects import suspects
from verify.problems import Problem, pool
from verify.records import Draft, Outcome
from verify.spaces.decoder import DecodedLaw, pairs
from verify.spaces.decoder_pairs import drafts_at_once
from verify.spaces.discrete import ProblemLaw, law_of
from verify.spaces.problem_law import SINGLE
from verify.verifier import catalog
from verify.verifiers.rejection import Rejection

torch.set_num_threads(1)

SABOTEURS = catalog("saboteurs")
CHAIN = [name for name, kind in SABOTEURS.items() if not kind.claim.exact and not laid_beside(kind(), 2)]
DECODED = [
    name
    for name, kind in SABOTEURS.items()
    if not kind.claim.exact and name not in CHAIN and not decoded_beside(kind())
]
FEW = [problem for problem in pool(3, 2) if problem.name in ("random", "zeros", "ties", "reversed", "peaked")]


def a_third(names: Sequence[str]) -> list[Any]:
    """All names, two of three of them for the long run only."""
    return [pytest.param(name, marks=[pytest.mark.slow] * bool(place % 3)) for place, name in enumerate(names)]


def laws_of(rule: Any, problems: Sequence[Problem] = FEW) -> list[ProblemLaw]:
    return [joint_law(rule, problem) for problem in problems]


def decoded(rule: Any, draft_length: int, size: tuple[int, int] = (2, 3)) -> list[DecodedLaw]:
    """The laws of sequences of a catalogue rule, as those of an unknown decoder would be found."""
    some = pairs(*size)
    found = []
    for pair, law in zip(some, sequence_laws(rule, some, draft_length), strict=True):
        shaped = law.reshape((pair.vocab,) * pair.length)
        found.append(DecodedLaw(pair, {tuple(key): float(shaped[tuple(key)]) for key in shaped.nonzero()}, 0.0, False))
    return found


def names(told: str) -> list[str]:
    """The rules that a diagnosis names, the first one and those it cannot tell apart from it."""
    first = re.match(r"(?:behaves exactly like|emits other blocks, but with exactly the law of) (\w+)", told)
    others = re.search(r"not to be told apart here from (.*)$", told)
    return ([first[1]] if first else []) + (re.findall(r"(\w+)(?: \([^)]*\))?(?:, |$)", others[1]) if others else [])


# --- one defect is named --------------------------------------------------------------------------------------------
NAMES = {
    "always accept": "always_accept",
    "u = 0 (vLLM-Ascend #13730)": "always_accept",
    "residual is the target (mlx-lm #1085)": "residual_target",
    "residual |p - q|": "residual_absolute",
    "residual softmax((p - q)+) (transformers #27979)": "residual_softmax",
    "residual floored (vLLM #13933)": "residual_floor",
    "residual argmax": "residual_argmax",
    "square root of the ratio": "ratio_root",
    "lenience 0.99": "lenient (lenience = 0.99)",
    "bonus from the last draft row": "bonus_from_draft",
    "bonus from the previous target row": "bonus_previous_row",
    "argmax of the target": "match_argmax",
}


@pytest.mark.parametrize("bug", NAMES)
def test_foreign_bugs_are_named(bug: str) -> None:
    found = diagnose([law_of(BUGS[bug], problem) for problem in FEW[:2]])
    assert found.startswith(f"behaves exactly like {NAMES[bug]}"), found


@pytest.mark.parametrize("name", a_third(CHAIN))
def test_a_saboteur_is_named_by_its_law_alone(name: str) -> None:
    laws = laws_of(SABOTEURS[name]())
    assert max(law.bias for law in laws) > 1e-6
    assert name in names(diagnose(laws)), diagnose(laws)


@pytest.mark.slow
@pytest.mark.parametrize("name", DECODED)
def test_a_saboteur_that_no_chain_shows_is_named_as_a_decoder(name: str) -> None:
    cases = (((2, 3), 2), ((2, 3), 3), ((3, 2), 2))  # two tokens leave no choice once one of them is taken out
    told = [diagnose_decoder(decoded(SABOTEURS[name](), length, size), heard=length) for size, length in cases]
    assert any(name in names(text) for text in told), told


def test_a_decoder_is_diagnosed_with_the_draft_length_that_is_heard() -> None:
    verdict = check_decoder(decoder(draft_length=2, bonus_row=-2), vocab=2, length=3)
    assert verdict.diagnosis.startswith("behaves exactly like bonus_previous_row at draft length 2, ")
    assert "first departs at position" in verdict.counterexample.where


@pytest.mark.parametrize("length", [1, 2, 3])
def test_drafts_are_heard(length: int) -> None:
    pair = pairs(2, 4)[0]
    assert drafts_at_once(decoder(draft_length=length), pair) == length
    assert drafts_at_once(plain, pair) == 0  # a decoder that asks the target only


@dataclass(frozen=True)
class Torch:
    """The draws of a tape made by torch, as foreign code makes them."""

    def coin(self, site: str, prob: Tensor) -> Tensor:
        return torch.rand(prob.shape, dtype=torch.float64) < prob

    def categorical(self, site: str, probs: Tensor) -> Tensor:
        return torch.multinomial(probs.reshape(-1, probs.shape[-1]), 1).reshape(probs.shape[:-1])

    def __getitem__(self, rows: Tensor) -> Torch:
        return self


def foreign(rule: Any) -> Callable[..., Any]:
    """A rule of the catalogue as a third-party function without a name."""
    from distributions.categorical import Categorical

    def fn(draft_tokens: Tensor, draft_probs: Tensor, target_probs: Tensor) -> list[int]:
        draft = Draft.chain(draft_tokens[None], Categorical(draft_probs[None]))
        made = rule.verify(draft, Categorical(target_probs[None]), Torch())
        return made.value[0, : int(made.length)].tolist()

    return fn


@pytest.mark.parametrize("name", CHAIN[::6])
def test_a_saboteur_is_named_as_a_foreign_function(name: str) -> None:
    assert name in names(diagnose([law_of(foreign(SABOTEURS[name]()), problem) for problem in pool(2, 2)[:2]]))


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAIN)
def test_every_saboteur_is_named_as_a_foreign_function(name: str) -> None:
    assert name in names(check_verifier(foreign(SABOTEURS[name]())).diagnosis)


def test_the_verdict_carries_the_diagnosis() -> None:
    verdict = check_verifier(BUGS["residual softmax((p - q)+) (transformers #27979)"])
    assert "residual_softmax, huggingface/transformers #27979" in verdict.diagnosis
    assert verdict.diagnosis in str(verdict)
    where = (
        "first departs at position 1 at the start, in the replacement after a rejection (it keeps as rejection does): "
    )
    assert verdict.counterexample.where.startswith(where)


def test_one_number_is_fitted_where_one_problem_leaves_it_open() -> None:
    """With p = (1/2, 1/2) and q = (0.51, 0.49) every lenience below 0.98 keeps all drafts: the next problem decides."""
    flat = Problem((torch.tensor([[0.51, 0.49]]),), (torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 1], [1, 1]])))
    fn = rule(accept=lambda p, q, x: p[x] / q[x] / 0.8)
    told = diagnose([law_of(fn, problem) for problem in (flat, FEW[0])])
    assert told.startswith("behaves exactly like lenient (lenience = 0.8)"), told


def test_single_precision_does_not_hide_a_name() -> None:
    bug = BUGS["residual is the target (mlx-lm #1085)"]
    laws = [law_of(lambda x, q, p: bug(x, q.float(), p.float()), problem) for problem in FEW[:2]]
    assert names(diagnose(laws, SINGLE)) == ["residual_target"] and diagnose(laws).startswith(UNKNOWN)


# --- none is named wrongly ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fn", [torch_item, sampler_match, point_mass], ids=lambda fn: fn.__name__)
def test_lossless_functions_have_no_diagnosis(fn: Callable[..., Any]) -> None:
    assert diagnose([law_of(fn, problem) for problem in FEW]) == ""


def test_a_lossless_verdict_has_no_diagnosis() -> None:
    assert check_verifier(torch_item, vocab=2, draft_length=1).diagnosis == ""
    assert diagnose_decoder(decoded(Rejection(), 2)) == ""


class Asked(Exception):
    """The probability of the coins that a rule tosses first."""


@dataclass(frozen=True)
class _Ear:
    def coin(self, site: str, prob: Tensor) -> Tensor:
        raise Asked(prob)

    def categorical(self, site: str, probs: Tensor) -> Tensor:
        raise Asked(None)

    def __getitem__(self, rows: Tensor) -> _Ear:
        return self


@dataclass(frozen=True)
class _Instead:
    """The draws of a tape, with coins of other probabilities."""

    tape: Tape
    prob: Tensor

    def coin(self, site: str, prob: Tensor) -> Tensor:
        return self.tape.coin(site, self.prob)

    def categorical(self, site: str, probs: Tensor) -> Tensor:
        return self.tape.categorical(site, probs)

    def __getitem__(self, rows: Tensor) -> Tape:
        return self.tape[rows]


@dataclass(frozen=True)
class Composed:
    """The coins of one rule, and all the rest of another: two defects at once, where each has one."""

    accept: Any
    rest: Any

    def verify(self, draft: Draft, target: Any, tape: Tape) -> Outcome:
        with pytest.raises(Asked) as asked:
            self.accept.verify(draft, target, _Ear())
        made: Outcome = self.rest.verify(draft, target, _Instead(tape, asked.value.args[0]))
        return made


def coin_first(name: str) -> bool:
    """Whether a rule draws nothing before the coins of its nodes."""
    draft = Draft.chain(torch.tensor([[0, 1]]), _uniform(2))
    with pytest.raises(Asked) as asked:
        SABOTEURS[name]().verify(draft, _uniform(3), _Ear())
    prob = asked.value.args[0]
    return prob is not None and prob.shape == (1, 2)


def _uniform(nodes: int) -> Any:
    from distributions.categorical import Categorical

    return Categorical(torch.ones(1, nodes, 3))


SEPARABLE = [name for name in CHAIN if coin_first(name)]
PAIRS = [(one, other) for one in SEPARABLE for other in SEPARABLE if one != other]


def check_composition(one: str, other: str) -> None:
    """Unknown, or a rule whose law is the composition's: also on problems that the diagnosis did not see."""
    both = Composed(SABOTEURS[one](), SABOTEURS[other]())
    told = diagnose(laws_of(both))
    if not told:
        assert max(law.bias for law in laws_of(both, pool(3, 2, seed=7)[:4])) < 1e-9
    elif not told.startswith(UNKNOWN):
        assert names(told), told
        kind = dict(suspects())[names(told)[0]]
        number = re.search(r"\((\w+) = ([\d.e-]+)\)", told.split(",")[0])
        named = kind(**{number[1]: float(number[2])}) if number else kind()
        for problem in pool(3, 2, seed=7)[:4]:
            away = (law_of_verifier(named, problem) - law_of_verifier(both, problem)).abs().sum()
            assert float(away) < 1e-5, told  # the number is shown to six digits


def test_there_are_defects_to_compose() -> None:
    assert len(SEPARABLE) > len(CHAIN) / 2
    assert not {"bonus_from_draft", "ratio_root", "residual_softmax"} - set(SEPARABLE)


@pytest.mark.parametrize(("one", "other"), PAIRS[:: max(1, len(PAIRS) // 4)])
def test_two_defects_are_not_given_a_wrong_name(one: str, other: str) -> None:
    check_composition(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("one", SEPARABLE)
def test_no_two_defects_are_given_a_wrong_name(one: str) -> None:
    for other in SEPARABLE:
        if other != one:
            check_composition(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("ratio_root", "residual_softmax"), ("ratio_root", "bonus_from_draft"), ("ratio_inverted", "residual_target")],
)
def test_two_visible_defects_are_unknown(one: str, other: str) -> None:
    told = diagnose(laws_of(Composed(SABOTEURS[one](), SABOTEURS[other]())))
    assert told.startswith(UNKNOWN) and "nearest" not in told, told


def test_a_defect_that_masks_another_is_named_alone() -> None:
    """Lemma L10: where everything is kept no residual is ever drawn."""
    told = diagnose(laws_of(Composed(SABOTEURS["always_accept"](), SABOTEURS["residual_softmax"]())))
    assert names(told)[0] == "always_accept"


def test_a_wrong_threshold_and_a_wrong_residual_are_unknown() -> None:
    both = rule(accept=lambda p, q, x: p[x] / q[x] / 0.9, residual=lambda p, q, x: p)
    assert diagnose([law_of(both, problem) for problem in FEW[:2]]).startswith(UNKNOWN)


def test_a_near_rule_is_called_near_and_not_the_same() -> None:
    """A lenience of 0.9 on most tokens: no known rule, and near lenience all the same."""
    fn = rule(accept=lambda p, q, x: p[x] / q[x] / (0.9 if x else 0.901))
    told = diagnose([law_of(fn, problem) for problem in FEW[:2]])
    assert told.startswith(f"{UNKNOWN}; nearest is lenient (lenience = 0.9"), told
    assert float(re.search(r"at most (\S+) away", told)[1]) < 1e-3


@dataclass(frozen=True)
class Drafted:
    """Drafts drawn as one defect draws them, verified as another one verifies them."""

    source: Any
    rule: Any

    def parent(self, nodes: int) -> Tensor:
        return parents(self.rule, nodes)

    def drafts(self, law: Any, earlier: Tensor) -> Any:
        return policy(self.source)(law, earlier)

    def verify(self, draft: Draft, target: Any, tape: Tape) -> Outcome:
        made: Outcome = self.rule.verify(draft, target, tape)
        return made


def test_wrong_drafts_and_a_wrong_residual_are_unknown() -> None:
    source = next(kind for kind in SABOTEURS.values() if hasattr(kind, "drafts") and not hasattr(kind, "parent"))
    told = diagnose_decoder(decoded(Drafted(source(), SABOTEURS["residual_softmax"]()), 2), heard=2)
    assert told.startswith(UNKNOWN), told


# --- who is laid beside whom ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", a_third([*dict(suspects())]))
def test_a_suspect_is_compared_or_left_out_for_what_it_declares(name: str) -> None:
    rule = dict(suspects())[name]()
    reason = laid_beside(rule, 2)
    if not reason:
        assert float(law_of_verifier(rule, FEW[0]).sum()) == pytest.approx(1.0, abs=1e-12)
    elif "chain" in reason:
        assert not torch.equal(rule.parent(2), torch.tensor([-1, 0]))
    elif "drawn" in reason:
        assert hasattr(rule, "drafts")
    else:
        assert rule.claim.level in ("batch", "sequence") or "carries" in reason
    if not decoded_beside(rule):
        laws = sequence_laws(rule, pairs(2, 2)[:2], 2)
        assert torch.allclose(laws.sum(-1), torch.ones(2).double(), rtol=0, atol=1e-12)


def test_a_catalogue_verifier_has_the_law_of_the_same_rule_written_by_hand() -> None:
    for problem in pool(3, 2)[::3]:
        by_hand = law_of(rule(), problem)
        assert torch.allclose(law_of_verifier(Rejection(), problem), by_hand.law, atol=1e-15, rtol=0)
        mine = joint_law(Rejection(), problem).joint
        assert set(mine) <= set(by_hand.joint) | {key for key, mass in mine.items() if mass < 1e-12}
        assert all(abs(mine.get(key, 0.0) - mass) < 1e-15 for key, mass in by_hand.joint.items())


# --- where a law departs --------------------------------------------------------------------------------------------
def at(part: str, place: int, context: list[int] | None = None) -> Callable[..., Any]:
    """A right rule with one part wrong at one position, there in one context only if one is given."""

    def fn(x: Tensor, q: Tensor, p: Tensor) -> list[int]:
        emitted: list[int] = []
        for i in range(len(x)):
            here = i == place and context in (None, emitted)
            accept = p[i, x[i]] / q[i, x[i]]
            accept = accept * {"high": 1.2, "low": 0.8}.get(part, 1.0) if here else accept
            if torch.rand(1).item() < accept:
                emitted.append(int(x[i]))
                continue
            residual = (p[i] - q[i]).clamp(min=0)
            return [*emitted, torch.multinomial(p[i] if here and part == "residual" else residual, 1).item()]
        wrong = part == "bonus" and context in (None, emitted)
        return [*emitted, torch.multinomial(q[-1] if wrong else p[-1], 1).item()]

    return fn


@pytest.mark.parametrize("context", [None, [1]])
@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("residual", "in the replacement after a rejection (it keeps as rejection does)"),
        ("high", "in the acceptance (token"),
        ("low", "in the acceptance (it replaces as rejection does, and keeps other tokens)"),
    ],
)
def test_the_branch_of_a_departure_at_position_2(part: str, words: str, context: list[int] | None) -> None:
    for problem in FEW[:2]:
        found = departure(law_of(at(part, 1, context), problem))
        assert found is not None and len(found.prefix) == 1 and words in str(found), str(found)
        assert str(found).startswith(f"first departs at position 2 after {list(found.prefix)}, in ")
        assert context is None or found.prefix == tuple(context)


@pytest.mark.parametrize("context", [None, [1, 0]])
def test_the_branch_of_a_wrong_bonus(context: list[int] | None) -> None:
    found = departure(law_of(at("bonus", 0, context), FEW[0]))
    assert found is not None and len(found.prefix) == 2 and found.branch == "the bonus after a draft kept whole"
    assert context is None or found.prefix == tuple(context)


def test_the_branch_of_a_token_drawn_later() -> None:
    found = departure(law_of(BUGS["no stop after a rejection (OpenVINO #4190)"], FEW[0]))
    assert found is not None and found.branch == "a token after one that was not drafted" and len(found.prefix) == 1


def test_parts_of_two_exact_rules_that_do_not_fit_are_told() -> None:
    for bug, keeps, replaces in (
        ("dense ratio, delta residual", "rejection", "point_mass"),
        ("delta ratio, dense residual", "point_mass", "rejection"),
    ):
        found = departure(law_of(BUGS[bug], FEW[0]))
        assert found is not None
        assert found.branch.endswith(f"(it keeps as {keeps} does, and replaces as {replaces} does)"), found.branch


def test_a_function_that_ends_where_it_keeps_is_understood() -> None:
    def one_token(x: Tensor, q: Tensor, p: Tensor) -> list[int]:
        if torch.rand(1).item() < 1.3 * p[0, x[0]] / q[0, x[0]]:
            return [int(x[0])]
        return [torch.multinomial((p[0] - q[0]).clamp(min=0), 1).item()]

    found = departure(law_of(one_token, FEW[0]))
    assert found is not None and found.branch.startswith("the acceptance (token")


def test_the_right_law_departs_nowhere() -> None:
    for problem in FEW:
        assert departure(law_of(torch_item, problem)) is None
