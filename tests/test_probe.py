"""Unmodified functions at the full vocabulary: what is recovered of them is what they do, and the bounds hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from verify.errors import SubjectError
from verify.foreign.leaf import NotUnderstood
from verify.foreign.wide import noise, weights_of
from verify.problems import Problem
from verify.spaces.discrete import law_of
from verify.vocabulary.precision import chance
from verify.vocabulary.probe import _least, probe
from verify.vocabulary.production import logits, table, truncated

FULL = 151_936
Fn = Callable[..., Any]


def by_multinomial(weights: Tensor) -> int:
    return int(torch.multinomial(weights, 1).item())


def by_exponentials(weights: Tensor) -> int:
    return int((weights / torch.empty_like(weights).exponential_()).argmax().item())


def by_gumbel(weights: Tensor) -> int:
    return int((weights.log() - torch.rand_like(weights).log().neg().log()).argmax(-1).item())


def by_least(weights: Tensor) -> int:
    return int(torch.empty_like(weights).exponential_().div_(weights).min(dim=-1).indices.item())


def excess(draft: Tensor, target: Tensor) -> Tensor:
    return (target - draft).clamp(min=0)


def rule(
    replace: Callable[..., Tensor] = excess,
    draw: Callable[[Tensor], int] = by_multinomial,
    scale: float = 1.0,
    coin: torch.dtype | None = None,
    strict: bool = True,
) -> Fn:
    """A token verifier of one draft in the style asked for."""

    def fn(drafted: Tensor, draft: Tensor, target: Tensor) -> list[int]:
        draft, target = draft.float(), target.float()
        token = int(drafted[0])
        bar, uniform = scale * target[0, token] / draft[0, token], torch.rand((), dtype=coin)
        if bool(uniform < bar) if strict else bool(uniform <= bar):
            return [token, draw(target[-1])]
        return [draw(replace(draft[0], target[0]))]

    return fn


def delta(drafted: Tensor, draft: Tensor, target: Tensor) -> list[int]:
    """Keeps x with probability p(x), and draws from p without x otherwise: exact for any draft (lemma L3)."""
    token = int(drafted[0])
    if torch.rand(()) < target[0, token]:
        return [token, by_multinomial(target[-1])]
    rest = target[0].clone()
    rest[token] = 0
    return [by_multinomial(rest)]


def matching(drafted: Tensor, draft: Tensor, target: Tensor) -> list[int]:
    """The target's own draw, whatever was drafted: exact (lemma L4)."""
    token = by_multinomial(target[0])
    return [token, by_multinomial(target[1])] if token == int(drafted[0]) else [token]


def always(drafted: Tensor, draft: Tensor, target: Tensor) -> list[int]:
    return [int(drafted[0]), by_multinomial(target[-1])]


def in_rows(drafted: Tensor, draft: Tensor, target: Tensor) -> list[int]:
    """The bonus and the replacement drawn together in one race over two rows, before the coin."""
    both = torch.stack(((target[0] - draft[0]).clamp(min=0), target[1]))
    found = (both / torch.empty_like(both).exponential_()).argmax(-1)
    if torch.rand(1).item() < target[0, drafted[0]] / draft[0, drafted[0]]:
        return [int(drafted[0]), int(found[1])]
    return [int(found[0])]


EXACT: dict[str, Fn] = {
    "multinomial": rule(),
    "exponential race": rule(draw=by_exponentials),
    "Gumbel race": rule(draw=by_gumbel),
    "smallest wins": rule(draw=by_least),
    "rows": in_rows,
    "point mass": delta,
    "matching": matching,
}
LOSSY: dict[str, Fn] = {
    "floor": rule(lambda draft, target: (target - draft).clamp(min=1e-5)),
    "epsilon": rule(lambda draft, target: excess(draft, target) + 1e-10, draw=by_exponentials),
    "from the target": rule(lambda draft, target: target, draw=by_gumbel),
    "lenient": rule(scale=1 / 0.9),
    "coarse coin": rule(coin=torch.bfloat16),
    "coarse coin, zero accepted": rule(coin=torch.bfloat16, strict=False),
    "always": always,
}


def small(seed: int, vocab: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    rows = torch.rand(3, vocab, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.05
    return tuple((rows / rows.sum(-1, keepdim=True)).float())  # type: ignore[return-value]


@pytest.mark.parametrize("name", [*EXACT, *LOSSY])
def test_recovered_is_what_enumeration_finds(name: str) -> None:
    """Every token of a small vocabulary tried: the bounds meet at the bias of the exact law."""
    fn = {**EXACT, **LOSSY}[name]
    draft, target, bonus = small(1)
    problem = Problem((draft.unsqueeze(0),), (target.unsqueeze(0), bonus.expand(5, 5)), dtype=torch.float32)
    exact = law_of(fn, problem)
    truth = law_of(rule(), problem)
    first = float((exact.law - truth.law).reshape(5, 5).sum(1).abs().sum() / 2)
    found = probe(fn, draft, target, bonus=bonus, tokens=70)
    assert found.seen == pytest.approx(1) and len(found.tokens) == 5
    assert found.lower <= first + 1e-6 and first <= found.upper + 1e-6
    if found.identity is not None:
        assert found.upper - found.lower < 3 * float(found.identity.budget.total) + 1e-6
        assert float(found.identity.bias) == pytest.approx(first, abs=1e-6)
    assert found.status == ("lossless" if name in EXACT or first < 1e-6 else "lossy")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_recovered_parts_at_full_size(dtype: torch.dtype) -> None:
    draft, target = (table(item, dtype)[0] for item in logits(1, FULL))
    found = probe(rule(), draft, target)
    assert torch.allclose(
        found.accept, (target.float() / draft.float()).clamp(max=1).double()[found.tokens], rtol=0, atol=0
    )
    assert found.replace is not None
    assert torch.equal(found.replace, (target.float() - draft.float()).clamp(min=0).double())
    assert found.bonus == 0 and found.shared and 0.5 < found.seen < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("vocab", [32_000, pytest.param(FULL, marks=pytest.mark.slow)])
def test_exact_functions_pass(vocab: int, cut: bool, dtype: torch.dtype) -> None:
    scores = logits(1, vocab, seed=5)
    draft, target = (table(truncated(item) if cut else item, dtype)[0] for item in scores)
    for name, fn in EXACT.items():
        if dtype is torch.float32 or name not in ("rows", "exponential race"):
            assert probe(fn, draft, target, tokens=14).status == "lossless", name


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_functions_are_found_at_full_size(name: str) -> None:
    scores = logits(1, FULL)
    target = scores[1] if name != "coarse coin, zero accepted" else truncated(scores[1])
    found = probe(LOSSY[name], table(scores[0], torch.float32)[0], table(target, torch.float32)[0])
    assert found.status == "lossy"
    if name != "epsilon":  # certified whatever is done with the tokens that were not tried
        assert found.lower > 1e-5
    if found.identity is not None:
        part = "acceptance" if name in ("lenient", "coarse coin", "coarse coin, zero accepted") else "replacement"
        assert found.identity.component() == part
    if name == "coarse coin, zero accepted":
        outside = table(target, torch.float32)[0][found.tokens] == 0
        zero = float(chance(torch.zeros(()), torch.bfloat16, strict=False))
        assert bool(outside.any()) and torch.allclose(found.accept[outside], torch.tensor(zero).double(), atol=1e-12)


def test_drafts_from_another_law_than_claimed() -> None:
    scores, target = logits(1, 32_000)
    raw, cut, wanted = (table(item, torch.float32)[0] for item in (scores, truncated(scores), truncated(target)))
    honest, mislabelled = probe(rule(), cut, wanted), probe(rule(), raw, wanted, drawn=cut)
    assert honest.status == "lossless" and mislabelled.status == "lossy"
    assert mislabelled.identity is not None and mislabelled.identity.component() == "draft law"
    assert mislabelled.lower > 1e-3


def test_a_wrong_bonus_is_lossy() -> None:
    def fn(drafted: Tensor, draft: Tensor, target: Tensor) -> list[int]:
        found = rule()(drafted, draft, target)
        return [found[0], by_multinomial(target[0])] if len(found) == 2 else found

    draft, target, bonus = small(4, 50)
    found = probe(fn, draft, target, bonus=bonus)
    assert found.status == "lossy" and found.identity is not None and found.identity.lossless
    assert found.bonus == pytest.approx(float((target - bonus).abs().sum() / 2), rel=1e-3)


def test_what_is_not_understood_is_not_judged() -> None:
    def thinning(drafted: Tensor, draft: Tensor, target: Tensor) -> list[int]:
        while True:
            token = by_multinomial(target[0])
            if torch.rand(()) < 1 - draft[0, token] / target[0, token]:
                return [token]

    def mapped(drafted: Tensor, draft: Tensor, target: Tensor) -> list[int]:
        return [(by_multinomial(target[0]) + 1) % 50]

    def peeking(drafted: Tensor, draft: Tensor, target: Tensor) -> list[int]:
        noise = torch.rand_like(target[0])
        return [int(drafted[0])] if noise[0] < 0.5 else [by_multinomial(target[0])]

    def two_noises(drafted: Tensor, draft: Tensor, target: Tensor) -> list[int]:
        row = target[0].log()
        return [int((row + torch.empty_like(row).exponential_() * torch.rand_like(row)).argmax())]

    def shifted(drafted: Tensor, draft: Tensor, target: Tensor) -> list[int]:
        return [int((target[0] + torch.empty_like(target[0]).exponential_()).argmax())]

    def product(drafted: Tensor, draft: Tensor, target: Tensor) -> list[int]:
        row = target[0]
        return [int((row / torch.empty_like(row).exponential_() / torch.empty_like(row).exponential_()).argmax())]

    draft, target, _ = small(2, 50)
    for fn in (thinning, mapped, peeking, two_noises, product, shifted):
        with pytest.raises(NotUnderstood):
            probe(fn, draft, target)
    with pytest.raises(SubjectError, match="raised"):
        probe(lambda *rows: rows[3], draft, target)


@pytest.mark.parametrize("tried", range(1, 7))
def test_the_bound_against_a_linear_programme(tried: int) -> None:
    """Minimise TV over the accepted mass k(y) of the tokens not tried, 0 <= k <= q: o = k + (1 - sum k) r is linear."""
    size = 6
    for seed in range(6):
        draft, target, replace = (row.double() / row.double().sum() for row in small(seed, size))
        accept = (target / draft).clamp(max=1) * 0.7
        tokens = torch.arange(tried)
        found = _least(tokens, accept[tokens], replace, draft, target)
        whole = torch.eye(size, dtype=torch.float64) - replace.unsqueeze(1)
        gap = torch.eye(size, dtype=torch.float64)
        known = (draft * accept).tolist()
        best = linprog(
            [0.0] * size + [0.5] * size,
            A_ub=torch.cat((torch.cat((whole, -gap), 1), torch.cat((-whole, -gap), 1))).numpy(),
            b_ub=torch.cat((target - replace, replace - target)).numpy(),
            bounds=[(k, k) if y < tried else (0, q) for y, (k, q) in enumerate(zip(known, draft.tolist(), strict=True))]
            + [(0, None)] * size,
        ).fun
        assert found <= best + 1e-9
        if tried == size:
            law = draft * accept + (1 - (draft * accept).sum()) * replace
            assert found == pytest.approx(float((law - target).abs().sum() / 2), abs=1e-9)
        assert found > 0.5 * best - 1e-9


def test_weights_of_a_race() -> None:
    """Scores that are one map of E / w give w back up to a factor; others are refused."""
    weights = torch.tensor([0.5, 0.0, 1e-6, 3.0, 1.0], dtype=torch.float64)
    drawn = [noise(run, 5) for run in range(3)]
    shapes: list[tuple[Callable[[Tensor], Tensor], str]] = [
        (lambda e: weights / e, "largest"),
        (lambda e: e / weights, "smallest"),
        (lambda e: (weights / e) ** 0.5 * 7, "largest"),
        (lambda e: (weights.log() - e.log()) / 0.7, "largest"),
        (lambda e: 3 + e.log() - weights.log(), "smallest"),
    ]
    for shape, kind in shapes:
        found = weights_of([(shape(item), kind) for item in drawn])
        assert torch.allclose(found / found.sum(), weights / weights.sum(), rtol=1e-12)
    for shape, kind in [
        (lambda e: weights + e, "largest"),
        (lambda e: weights / e, "smallest"),
        (lambda e: weights.log() - math.e * e, "largest"),
    ]:
        with pytest.raises(NotUnderstood):
            weights_of([(shape(item), kind) for item in drawn])
