"""Verdicts on third-party functions: public bugs re-enacted are lossy, correct code is lossless, wrong calls say so."""

from __future__ import annotations

import json
import math
import threading

import pytest
import torch

from tests.verifiers_under_test import point_mass, sampler_match, torch_item
from verify import Verdict, assert_lossless, check_decoder, check_verifier
from verify.errors import SubjectError
from verify.problems import Problem, pool
from verify.spaces.discrete import law_of


def rule(accept=None, residual=None, bonus=None, stop=True):
    """A verifier with one part replaced: accept(p, q, x), residual(p, q, x), bonus(p, q) over rows."""
    accept = accept or (lambda p, q, x: p[x] / q[x])
    residual = residual or (lambda p, q, x: (p - q).clamp(min=0))
    bonus = bonus or (lambda p, q: p[-1])

    def fn(x, q, p):
        emitted = []
        for i in range(len(x)):
            if torch.rand(1).item() < float(accept(p[i], q[i], x[i])):
                emitted.append(int(x[i]))
                continue
            emitted.append(torch.multinomial(residual(p[i], q[i], x[i]), 1).item())
            if stop:
                return emitted
        return [*emitted, torch.multinomial(bonus(p, q), 1).item()]

    return fn


def drop(weights, x):
    weights = weights.clone()
    weights[x] = 0
    return weights


def some(weights):
    """Weights that can be drawn from, whatever the mutant made of them."""
    return weights if weights.sum() > 0 else torch.ones_like(weights)


# Names as in the public threads they re-enact; every one is a single edit of a correct verifier.
BUGS = {
    "always accept": rule(accept=lambda p, q, x: 1.0),
    "ratio upside down": rule(
        accept=lambda p, q, x: q[x] / p[x] if p[x] > 0 else 1.0, residual=lambda p, q, x: some((p - q).clamp(min=0))
    ),
    "residual is the target (mlx-lm #1085)": rule(residual=lambda p, q, x: p),
    "residual |p - q|": rule(residual=lambda p, q, x: (p - q).abs()),
    "residual softmax((p - q)+) (transformers #27979)": rule(residual=lambda p, q, x: (p - q).clamp(min=0).softmax(-1)),
    "residual floored (vLLM #13933)": rule(residual=lambda p, q, x: (p - q).clamp(min=1e-5)),
    "residual (q - p)+": rule(residual=lambda p, q, x: some((q - p).clamp(min=0))),
    "residual argmax": rule(residual=lambda p, q, x: torch.nn.functional.one_hot((p - q).argmax(), len(p)).double()),
    "lenience 0.99": rule(accept=lambda p, q, x: p[x] / q[x] / 0.99),
    "dense ratio, delta residual": rule(residual=lambda p, q, x: some(drop(p, x))),
    "delta ratio, dense residual": rule(
        accept=lambda p, q, x: p[x], residual=lambda p, q, x: some((p - q).clamp(min=0))
    ),
    "square root of the ratio": rule(accept=lambda p, q, x: (p[x] / q[x]).sqrt()),
    "no stop after a rejection (OpenVINO #4190)": rule(stop=False),
    "bonus from the last draft row": rule(bonus=lambda p, q: q[-1]),
    "bonus from the previous target row": rule(bonus=lambda p, q: p[-2]),
    "argmax of the target": rule(accept=lambda p, q, x: float(p.argmax() == x), residual=lambda p, q, x: p),
    "u = 0 (vLLM-Ascend #13730)": lambda x, q, p: [*x.tolist(), torch.multinomial(p[-1], 1).item()],
    "accepts probability zero at u <= 0, bf16 (SGLang #35771)": lambda x, q, p: (
        [int(x[0])]
        if torch.rand(1, dtype=torch.bfloat16) <= p[0, x[0]] / q[0, x[0]]
        else [torch.multinomial((p[0] - q[0]).clamp(min=0), 1).item()]
    ),
}


@pytest.mark.parametrize("name", BUGS)
def test_public_bugs_are_lossy_exactly_with_a_counterexample_that_runs(name):
    verdict = check_verifier(BUGS[name])
    assert verdict.status == "lossy" and verdict.evidence == "exact", str(verdict)
    assert verdict.bias_lower == verdict.bias_upper > 1e-6 and verdict.confidence == 1.0
    case = verdict.counterexample
    assert case is not None and case.where
    # The snippet is what it says: paste it where ``fn`` is the function.
    printed: list[float] = []
    exec(case.snippet, {"fn": BUGS[name], "print": printed.append})
    assert printed[0] == pytest.approx(case.bias, rel=1e-5)


@pytest.mark.parametrize("fn", [torch_item, sampler_match, point_mass], ids=lambda fn: fn.__name__)
def test_correct_verifiers_are_lossless_exactly(fn):
    verdict = assert_lossless(fn)
    assert verdict.evidence == "exact" and verdict.bias_lower == verdict.bias_upper < 1e-12
    assert verdict.acceptance <= verdict.overlap + 1e-12


def test_the_smallest_counterexample_is_small():
    case = check_verifier(BUGS["lenience 0.99"], vocab=3, draft_length=3).counterexample
    assert case.sizes == {"vocab": 2, "draft_length": 1}
    late = check_verifier(BUGS["no stop after a rejection (OpenVINO #4190)"]).counterexample
    assert late.sizes["draft_length"] == 1 and "position 2" in late.where


def test_lenience_has_the_bias_of_its_closed_form():
    fn = rule(accept=lambda p, q, x: p[x] / q[x] / 0.9)
    for problem in pool(3, 1):
        p, q = problem.target[0][0], problem.draft[0][0]
        wanted = torch.minimum(q, p / 0.9).sum() - torch.minimum(p, q).sum()
        assert law_of(fn, problem).bias == pytest.approx(float(wanted), abs=1e-14)


def test_single_precision_is_not_called_a_bug_and_half_precision_is():
    single = check_verifier(lambda x, q, p: torch_item(x, q.float(), p.float()))
    assert (
        single.status == "lossless" and 1e-12 < single.bias_upper < 2e-6 and any("float32" in n for n in single.notes)
    )
    half = check_verifier(
        rule(accept=lambda p, q, x: p[x] / q[x].bfloat16(), residual=lambda p, q, x: some((p - q).clamp(min=0)))
    )
    assert half.status == "lossy"
    assert check_verifier(lambda x, q, p: torch_item(x, q @ torch.eye(q.shape[1]), p.float())).lossless


def test_a_bug_that_lives_only_at_size_is_found():
    def top_50(x, q, p):
        if p.shape[1] > 50:
            p = p * torch.zeros_like(p).scatter(1, p.topk(50).indices, 1.0)
        return torch_item(x, q, p / p.sum(-1, keepdim=True))

    assert check_verifier(top_50).status == "lossy"

    def wrong_row_at_four(x, q, p):
        return torch_item(x, q, p if len(x) < 4 or p.shape[1] < 64 else torch.cat([p[:3], p[2:3], p[4:]]))

    verdict = check_verifier(wrong_row_at_four)
    assert verdict.status == "lossy" and verdict.evidence == "sampled" and verdict.bias_lower > 0.01
    assert "only at" in verdict.counterexample.where


def test_an_unbounded_loop_is_bounded(monkeypatch):
    """With a fifth of the time that a user's would have: what is not followed stays in the bounds."""
    monkeypatch.setattr("verify.spaces.discrete.SECONDS", {"quick": 6.0})
    monkeypatch.setattr("verify.spaces.discrete.LEAST", 0.3)

    def thinning(x, q, p):
        if torch.rand(1).item() < (p[0, x[0]] / q[0, x[0]]).item():
            return [int(x[0])]
        while True:
            z = torch.multinomial(p[0], 1).item()
            if torch.rand(1).item() < 1 - (q[0, z] / p[0, z]).item():
                return [z]

    verdict = check_verifier(thinning, vocab=2, draft_length=1)
    assert verdict.status != "lossy" and verdict.bias_upper < 0.5


@pytest.mark.parametrize("seed", ["x", -1, 1.5, None])
def test_a_seed_is_a_whole_number(seed):
    for judge in (check_verifier, check_decoder):
        with pytest.raises(SubjectError, match="seed is .*; give a whole number from 0"):
            judge(lambda *_: [0], seed=seed)


def test_an_option_that_there_is_not():
    with pytest.raises(SubjectError, match="foo is no option of space 'discrete'; there are space, vocab"):
        assert_lossless(lambda *_: [0], foo=3)


WRONG = {
    "None": (lambda x, q, p: None, "None"),
    "too many": (lambda x, q, p: [0] * (len(x) + 2), "4 tokens"),
    "none at all": (lambda x, q, p: [], "0 tokens"),
    "out of range": (lambda x, q, p: [p.shape[1]], "outside 0..2"),
    "negative": (lambda x, q, p: [-1], "outside 0..2"),
    "probabilities": (lambda x, q, p: p[0], "token id"),
    "raises": (lambda x, q, p: {}["key"], "KeyError"),
    "a draw": (lambda x, q, p: [torch.rand(1).item()], "token id"),
}


@pytest.mark.parametrize("name", WRONG)
def test_functions_that_return_no_tokens_get_one_clear_line(name):
    fn, words = WRONG[name]
    with pytest.raises(SubjectError, match=words) as caught:
        check_verifier(fn)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"vocab": 1},
        {"vocab": True},
        {"draft_length": 0},
        {"budget": "huge"},
        {"space": "tree"},
        {"vocab": 8, "draft_length": 6},
    ],
    ids=str,
)
def test_wrong_options_name_the_argument(options):
    with pytest.raises(SubjectError, match=next(iter(options))):
        check_verifier(torch_item, **options)


@pytest.mark.parametrize("table", [[[0.5, math.nan]], [[0.5, math.inf]], [[-0.1, 1.1]], [[0.0, 0.0]], [[1.0]]], ids=str)
def test_bad_tables_are_refused(table):
    with pytest.raises(ValueError, match=r"draft\[0\]"):
        Problem((torch.tensor(table),), (torch.ones(1, 2), torch.ones(2, 2)))


def test_a_hanging_function_is_ended(monkeypatch):
    monkeypatch.setattr("verify.foreign.runs.LIMIT_SECONDS", 0.2)
    with pytest.raises(SubjectError, match="did not return within"):
        check_verifier(lambda x, q, p: [0 for _ in iter(int, 1)])


def test_a_check_works_outside_the_main_thread():
    found: list[Verdict] = []
    thread = threading.Thread(target=lambda: found.append(check_verifier(torch_item, vocab=2, draft_length=1)))
    thread.start()
    thread.join()
    assert found[0].lossless


def test_the_verdict_is_reproducible_and_goes_to_json():
    first, second = (check_verifier(BUGS["residual |p - q|"], seed=3) for _ in range(2))
    assert first.bias_lower == second.bias_lower and first.counterexample == second.counterexample
    assert json.loads(first.to_json())["status"] == "lossy"


def test_arguments_are_fresh_in_every_call():
    def destroys(x, q, p):
        emitted = torch_item(x, q.clone(), p.clone())
        q.zero_()
        p.fill_(math.nan)
        return emitted

    assert check_verifier(destroys, draft_length=1).lossless


def test_assert_lossless_says_why():
    with pytest.raises(AssertionError, match="lossy") as caught:
        assert_lossless(BUGS["always accept"])
    assert "smallest counterexample" in str(caught.value) and "Problem(" in str(caught.value)


# --- decoders ------------------------------------------------------------------------------------------------------
def decoder(draft_length=2, lenience=1.0, bonus_row=-1, context=lambda emitted: emitted):
    def fn(target, drafter, length):
        emitted: list[int] = []
        while len(emitted) < length:
            draft, laws = [], []
            for _ in range(draft_length):
                laws.append(drafter(tuple(emitted + draft)))
                draft.append(torch.multinomial(laws[-1], 1).item())
            rows = [target(tuple(context(emitted + draft[:i]))) for i in range(draft_length + 1)]
            for i, token in enumerate(draft):
                if torch.rand(1).item() < (rows[i][token] / laws[i][token]).item() / lenience:
                    emitted.append(token)
                    continue
                emitted.append(torch.multinomial((rows[i] - laws[i]).clamp(min=0), 1).item())
                break
            else:
                emitted.append(torch.multinomial(rows[bonus_row], 1).item())
        return emitted[:length]

    return fn


def plain(target, drafter, length):
    emitted: tuple[int, ...] = ()
    for _ in range(length):
        emitted += (int(torch.multinomial(target(emitted), 1)),)
    return emitted


def test_correct_decoders_are_lossless_exactly():
    for fn in (plain, decoder(1)):
        verdict = check_decoder(fn, vocab=2, length=4)
        assert verdict.status == "lossless" and verdict.evidence == "exact" and verdict.bias_upper < 1e-12, str(verdict)


@pytest.mark.parametrize(
    "fn",
    [
        decoder(lenience=0.9),
        decoder(bonus_row=-2),
        decoder(context=lambda prefix: prefix[-1:]),
        lambda t, d, n: plain(d, t, n),
    ],
    ids=["lenience", "bonus row", "context cut", "drafter only"],
)
def test_wrong_decoders_are_lossy_with_a_counterexample_that_runs(fn):
    verdict = check_decoder(fn)
    assert verdict.status == "lossy" and verdict.evidence == "exact" and verdict.bias_lower > 1e-3, str(verdict)
    printed: list[float] = []
    exec(verdict.counterexample.snippet, {"fn": fn, "print": printed.append})
    assert printed[0] == pytest.approx(verdict.counterexample.bias, rel=1e-5)


def test_a_decoder_that_errs_late_is_found_by_samples():
    def late(target, drafter, length):
        emitted = list(plain(target, drafter, length))
        if length > 6:
            emitted[7] = torch.multinomial(drafter(tuple(emitted[:7])), 1).item()
        return emitted

    verdict = check_decoder(late)
    assert verdict.status == "lossy" and verdict.evidence == "sampled", str(verdict)


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda t, d, n: [0], "1 tokens"),
        (lambda t, d, n: t(5), "tuple of token ids"),
        (lambda t, d, n: t((9,)), "pass 0.."),
    ],
    ids=["short", "no prefix", "unknown id"],
)
def test_wrong_decoders_get_one_clear_line(fn, words):
    with pytest.raises(SubjectError, match=words):
        check_decoder(fn)


def test_law_of_matches_exact_runs_by_hand():
    problem = Problem(
        (torch.tensor([[1.0, 3.0]]),), (torch.tensor([[2.0, 2.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    )
    found = law_of(BUGS["always accept"], problem)
    assert found.emitted == pytest.approx({(0, 0): 0.125, (0, 1): 0.125, (1, 0): 0.75})
    assert found.bias == pytest.approx(0.25)
