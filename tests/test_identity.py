"""The identity check on tables: closed forms, what rounding may explain, published bugs at full size."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from torch import Tensor

from verify.studies.real_vocabulary import chi_square_power
from verify.vocabulary.identity import TOLERANCE, check_identity
from verify.vocabulary.precision import chance, normalisation, unit
from verify.vocabulary.production import CASES, logits, table, truncated

DTYPES = [torch.float32, torch.bfloat16]
FULL = 151_936


def pair(vocab: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Two flat-ish random laws."""
    rows = torch.rand(2, vocab, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.01
    rows = rows / rows.sum(-1, keepdim=True)
    return rows[0].to(dtype), rows[1].to(dtype)


def ratio(draft: Tensor, target: Tensor) -> Tensor:
    return target / draft


def residual(draft: Tensor, target: Tensor) -> Tensor:
    return (target - draft).clamp(min=0)


def tv(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().sum() / 2)


# --- closed forms ------------------------------------------------------------------------------------------------
def test_the_law_is_that_of_every_outcome_added_up() -> None:
    draft, target = pair(6)
    accept, weights = torch.linspace(0, 1, 6).double(), torch.arange(6).double()
    law = torch.zeros(6, dtype=torch.float64)
    for token in range(6):
        law[token] += draft[token] * accept[token]
        law += draft[token] * (1 - accept[token]) * weights / weights.sum()
    found = check_identity(accept, weights, draft, target)
    assert tv(found.law[0], law) < 1e-15
    assert abs(float(found.bias) - tv(law, target)) < 1e-15
    assert float(found.lower) == pytest.approx(float(found.bias), rel=1e-2) or float(found.lower) < float(found.bias)


def _lenient(draft: Tensor, target: Tensor) -> float:
    """Lenience l: sum min(q, p/l) - sum min(p, q), exactly (theory: A5)."""
    return float(torch.minimum(draft, target / 0.9).sum() - torch.minimum(draft, target).sum())


def _distance(draft: Tensor, target: Tensor) -> float:
    return tv(draft, target)


def _from_target(draft: Tensor, target: Tensor) -> float:
    """Residual := p: half the l1 norm of TV p - (p - q)+."""
    return float((tv(draft, target) * target - residual(draft, target)).abs().sum() / 2)


def _floor(draft: Tensor, target: Tensor) -> float:
    """Residual + e: TV V e / (TV + V e) times the distance of the residual law from the uniform one."""
    excess = residual(draft, target)
    extra, mass = len(draft) * 1e-3, float(excess.sum())
    return mass * extra / (mass + extra) * tv(excess / mass, torch.full_like(excess, 1 / len(excess)))


WRONG: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[..., float], str]] = {
    "lenient": (lambda d, t: t / (0.9 * d), residual, _lenient, "acceptance"),
    "always": (lambda d, t: torch.ones_like(t), residual, _distance, "acceptance"),
    "from the target": (ratio, lambda d, t: t, _from_target, "replacement"),
    "absolute": (ratio, lambda d, t: (t - d).abs(), lambda d, t: tv(d, t) / 2, "replacement"),
    "reversed": (ratio, lambda d, t: residual(t, d), _distance, "replacement"),
    "added": (ratio, lambda d, t: residual(d, t) + 1e-3, _floor, "replacement"),
}


@pytest.mark.parametrize("vocab", [5, 1000])
@pytest.mark.parametrize("name", WRONG)
def test_closed_forms_of_wrong_rules(name: str, vocab: int) -> None:
    accept, replace, formula, wrong = WRONG[name]
    draft, target = pair(vocab)
    found = check_identity(accept, replace, draft, target)
    assert float(found.bias) == pytest.approx(formula(draft, target), rel=1e-12)
    assert float(found.bias) * (1 - 1e-9) < float(found.lower) <= float(found.bias)
    assert found.component() == wrong and not found.lossless
    # Lemma L2, with equality where acceptance is at least min(1, p/q) and the residual exact.
    excess = float(found.acceptance - found.overlap)
    assert excess <= float(found.bias) + 1e-12
    if wrong == "acceptance":
        assert excess == pytest.approx(float(found.bias), rel=1e-9)


def test_drafts_from_another_law_than_claimed() -> None:
    draft, target = pair(50)
    other, _ = pair(50, 1)
    found = check_identity(ratio, residual, draft, target, drawn=other)
    accept = (target / draft).clamp(max=1)
    kept = other * accept
    law = kept + (1 - kept.sum()) * residual(draft, target) / residual(draft, target).sum()
    assert float(found.bias) == pytest.approx(tv(law, target), rel=1e-12)
    assert found.component() == "draft law"


def test_lossless_rules_of_another_kind_pass() -> None:
    """Under-acceptance is legal: any a with q a <= p, replaced by (p - q a) / (1 - sum q a)."""
    draft, target = pair(300)
    for share in (0.0, 0.3, 1.0):
        accept = share * (target / draft).clamp(max=1)
        found = check_identity(accept, (target - draft * accept).clamp(min=0), draft, target)
        assert found.lossless and float(found.bias) < 1e-15
        assert float(found.acceptance) == pytest.approx(share * float(found.overlap), rel=1e-12)


def test_point_masses_and_equal_tables() -> None:
    point = torch.nn.functional.one_hot(torch.tensor(2), 4).float()
    flat = torch.full((4,), 0.25)
    for draft, target in [(point, point), (flat, flat), (point, flat), (flat, point)]:
        assert check_identity(ratio, residual, draft, target).lossless


def test_contexts_are_apart() -> None:
    draft, target = (torch.stack(rows) for rows in zip(pair(40), pair(40, 1), pair(40, 2), strict=True))
    accept, replace = ratio(draft, target), residual(draft, target)
    replace[1] = target[1]
    found = check_identity(accept, replace, draft, target)
    assert found.worst == 1 and (found.lower > TOLERANCE).tolist() == [False, True, False]
    assert [found.component(at) for at in range(3)] == ["", "replacement", ""]
    alone = check_identity(accept[1], replace[1], draft[1], target[1])
    assert float(alone.bias) == pytest.approx(float(found.bias[1]), rel=1e-14)
    verdict = found.verdict("rule")
    assert verdict.status == "lossy" and "wrong: replacement" in str(verdict)
    assert verdict.bias_lower <= verdict.bias_upper


def test_wrong_calls_say_so() -> None:
    draft, target = pair(5)
    with pytest.raises(ValueError, match="finite and non-negative"):
        check_identity(ratio, residual, draft, target * math.nan)
    with pytest.raises(ValueError, match="draft is a list; give a tensor"):
        check_identity(ratio, residual, [0.5, 0.5], target)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target is of torch.int64"):
        check_identity(ratio, residual, draft, torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="one returned a NoneType"):
        check_identity(lambda q, p: None, residual, draft, target)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="one for each token"):
        check_identity(ratio, lambda d, t: t[:3], draft, target)
    with pytest.raises(ValueError, match="replace has no mass"):
        check_identity(ratio, lambda d, t: torch.zeros_like(t), draft, target)


# --- rounding ----------------------------------------------------------------------------------------------------
def test_normalisation_in_closed_form() -> None:
    """The standard rule on tables with sums S and T: TV = M |T - S| / (S T) TV(m, r), and no part of it is blamed."""
    for seed in range(20):
        draft, target = pair(64, seed)
        draft, target = draft * (1 + 1e-3 * seed), target * (1 - 2e-3)
        found = check_identity(ratio, residual, draft, target)
        shared, excess = torch.minimum(draft, target), residual(draft, target)
        apart = tv(shared / shared.sum(), excess / excess.sum())
        bound = float(shared.sum()) * abs(float(1 / draft.sum() - 1 / target.sum()))
        assert float(normalisation(draft, target)) == pytest.approx(bound, rel=1e-10)
        assert float(found.bias) == pytest.approx(bound * apart, rel=1e-10)
        assert found.lossless


weights = st.lists(st.floats(0, 1), min_size=3, max_size=8).filter(lambda row: sum(row) > 1e-3)


@settings(max_examples=200, deadline=None)
@given(weights, weights, weights, weights, st.sampled_from(DTYPES))
def test_never_more_blamed_than_there_is(
    a: list[float], b: list[float], c: list[float], d: list[float], dtype: torch.dtype
) -> None:
    size = min(map(len, (a, b, c, d)))
    draft, target, accept, replace = (torch.tensor(row[:size]) for row in (a, b, c, d))
    if not all(float(row.to(dtype).sum()) > 0 for row in (draft, target, replace)):
        return
    draft, target = (row / row.sum() for row in (draft, target))
    found = check_identity(accept, replace, draft.to(dtype), target.to(dtype))
    assert 0 <= float(found.lower) <= float(found.bias) + 1e-12
    assert float(found.bias) - float(found.lower) <= 2 * float(found.budget.total) + 4 * unit(dtype)
    assert float(found.law.sum()) == pytest.approx(1, abs=1e-12)


def _single(table: Tensor) -> Tensor:
    return table.float()


def _or_target(excess: Tensor, target: Tensor) -> Tensor:
    return excess if float(excess.sum()) > 0 else target.to(excess.dtype)


def _normalised(table: Tensor) -> Tensor:
    return table.float() / table.float().sum()


STYLES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "cast": (lambda d, t: _single(t) / _single(d), lambda d, t: _or_target(residual(_single(d), _single(t)), t)),
    "native": (ratio, lambda d, t: _or_target(residual(d, t), t)),
    "logarithms": (
        lambda d, t: torch.exp(_single(t).log() - _single(d).log()),
        lambda d, t: _or_target(residual(_single(d), _single(t)) / residual(_single(d), _single(t)).sum(), t),
    ),
    "normalised anew": (
        lambda d, t: _normalised(t) / _normalised(d),
        lambda d, t: _or_target(residual(_normalised(d), _normalised(t)), t),
    ),
    "target normalised": (
        lambda d, t: _normalised(t) / _single(d),
        lambda d, t: _or_target(residual(_single(d), _normalised(t)), t),
    ),
    "draft normalised": (
        lambda d, t: _single(t) / _normalised(d),
        lambda d, t: _or_target(residual(_normalised(d), _single(t)), t),
    ),
    "double": (lambda d, t: t.double() / d.double(), lambda d, t: _or_target(residual(d.double(), t.double()), t)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("style", STYLES)
def test_correct_rules_are_never_accused(style: str, dtype: torch.dtype) -> None:
    """Peaked, truncated and nearly equal tables; deterministic, so no false-alarm rate."""
    for seed, (spread, noise) in enumerate([(3.0, 0.5), (5.0, 0.5), (8.0, 0.5), (5.0, 1e-3), (3.0, 2.0)]):
        for cut in (False, True):
            scores = logits(4, 32_000, spread, noise, seed)
            draft, target = (table(truncated(item) if cut else item, dtype) for item in scores)
            found = check_identity(*STYLES[style], draft, target)
            assert found.lossless, (spread, noise, cut, float(found.lower.max()))
            assert float(found.budget.arithmetic.max()) < (1e-5 if found.budget.ratio.max() < 1e-4 else 2e-2)


def test_normalisation_does_not_hide_a_leak() -> None:
    """One draft in a thousand kept outside the target's support, of less mass than the table's sum misses."""
    scores, wanted = logits(1, 32_000)
    draft, target = table(scores, torch.bfloat16)[0], table(truncated(wanted), torch.bfloat16)[0]
    accept = torch.where(target == 0, 1e-3, target.float() / draft.float())
    found = check_identity(accept, residual(draft.float(), target.float()), draft, target)
    leak = 1e-3 * float((draft.double() * (target == 0)).sum() / draft.double().sum())
    assert 0 < leak < float(found.budget.normalisation)
    assert float(found.leaked_accepted) == pytest.approx(leak, rel=1e-6)
    assert leak * 0.99 < float(found.lower) and found.component() == "acceptance"


def test_the_smallest_defects_beyond_rounding_are_seen() -> None:
    """A ratio off by 1e-8 is rounding of float32; off by 1e-4 it is not."""
    draft, target = (table(item, torch.float32)[0] for item in logits(1, 32_000))
    for off, lossless in [(1e-8, True), (1e-4, False)]:
        found = check_identity(lambda d, t, off=off: t / d * (1 + off), residual, draft, target)
        assert found.lossless is lossless


def test_a_chance_is_that_of_the_uniforms_torch_draws() -> None:
    """False alarm of each of the ten comparisons 1e-6, by the exact binomial law."""
    draws = 200_000
    generator = torch.Generator().manual_seed(3)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        uniform = torch.rand(draws, dtype=dtype, generator=generator)
        for bar in (0.0, 0.001953125, 0.3, 0.99609375, 1.0):
            for strict in (True, False):
                level = torch.tensor(bar, dtype=dtype)
                hits = int(((uniform < level) if strict else (uniform <= level)).sum())
                share = float(chance(level, dtype, strict))
                assert binom.cdf(hits, draws, share) > 5e-7 and binom.sf(hits - 1, draws, share) > 5e-7
    assert float(chance(torch.tensor(math.nan), torch.bfloat16)) == 0
    # Multiples of 2**-24: two of them are below 1.5 * 2**-24, and 0 alone is not above 0.
    assert float(chance(torch.tensor(1.5 * 2**-24))) == 2**-23 == float(chance(torch.tensor(2**-24), strict=False))
    assert float(chance(torch.zeros(()))) == 0 < float(chance(torch.zeros(()), strict=False)) == 2**-24
    assert float(chance(torch.tensor(0.3, dtype=torch.float64), torch.float64)) == pytest.approx(0.3, abs=2**-53)


# --- the published bugs at full size -----------------------------------------------------------------------------
EXPECTED = {
    "residual floor 1e-5": ("replacement", 0.05, 0.3),
    "residual + 1e-10": ("replacement", 1e-5, 1e-3),
    "bfloat16 coin, u < a": ("acceptance", 3e-4, 5e-3),
    "bfloat16 coin, u <= a, top-50 target": ("acceptance", 3e-4, 5e-3),
    "draft drawn in bfloat16, ratio in float32": ("draft law", 1e-3, 5e-2),
    "top-50 draft, raw label": ("draft law", 1e-2, 0.4),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_full_size(name: str, dtype: torch.dtype) -> None:
    draft, target = logits(2, FULL)
    found = CASES[name].check(draft, target, dtype)
    if name in EXPECTED:
        wrong, least, most = EXPECTED[name]
        assert found.component() == wrong
        assert least < float(found.bias[found.worst]) < most
    elif name == "no residual, index 0" and dtype is torch.bfloat16:
        # The draft claims one step, 2**-8 to 2**-7 of the largest mass, too much, and that share lands on token 0.
        assert found.component() == "replacement" and 1e-4 < float(found.bias[found.worst]) < 2**-7
    else:
        assert found.lossless, float(found.lower.max())


def test_additive_epsilon_in_closed_form() -> None:
    draft, target = (table(item, torch.float32)[0] for item in logits(1, FULL))
    found = check_identity(ratio, lambda d, t: residual(d, t) + 1e-10, draft, target)
    excess = residual(draft.double(), target.double())
    mass, extra = float(excess.sum()), FULL * 1e-10
    uniform = torch.full_like(excess, 1 / FULL)
    expected = mass * extra / (mass + extra) * tv(excess / mass, uniform)
    assert float(found.bias) == pytest.approx(expected, abs=float(found.budget.total))
    assert float(found.lower) == pytest.approx(expected, rel=0.1)
    assert chi_square_power(found, 0) < 1e-6


def test_where_a_coin_on_a_coarse_grid_leaks() -> None:
    """u <= 0 is true with probability P(u = 0): that share of the drafts outside the target's support is emitted."""
    draft, target = logits(2, FULL)
    found = CASES["bfloat16 coin, u <= a, top-50 target"].check(draft, target, torch.float32)
    outside = (table(draft, torch.float32).double() * (table(truncated(target), torch.float32) == 0)).sum(-1)
    zero = float(chance(torch.zeros(()), torch.bfloat16, strict=False))
    assert zero == pytest.approx(2.0**-9, rel=1e-4) or zero == 2.0**-8  # rounded to nearest, or 8 random bits
    assert torch.allclose(found.leaked_accepted, zero * outside, rtol=1e-5)
    strict = CASES["bfloat16 coin, u < a"].check(draft, truncated(target), torch.float32)
    assert float(strict.leaked_accepted.max()) == 0
