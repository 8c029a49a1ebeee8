"""The public surface: a function in, a verdict out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from verify.errors import SubjectError
from verify.foreign.plain import isolated
from verify.records import Verdict

BUDGETS = ("quick", "thorough")


def check_verifier(
    fn: Callable[..., Any],
    space: str = "discrete",
    *,
    vocab: int = 3,
    draft_length: int = 2,
    dim: int = 1,
    covariance: str = "equal",
    budget: str = "quick",
    seed: int = 0,
) -> Verdict:
    """Decide whether a verification function is lossless.

    ``space="discrete"``: ``fn(draft_tokens: LongTensor[gamma], draft_probs: Tensor[gamma, V], target_probs:
    Tensor[gamma+1, V])`` returns 1 to gamma + 1 emitted ids; judged at ``vocab`` and ``draft_length``.
    ``space="gaussian"``: ``fn(draft_value: Tensor[rows, dim], draft: Distribution, target: Distribution) ->
    Tensor[rows, dim]``, with one unbatched pair of torch laws a call; ``covariance="equal"`` both sigma^2 I,
    ``"any"`` unequal and full as well. ``fn`` is not edited; it draws with torch, numpy or the standard library.
    ``budget`` is ``quick`` or ``thorough``.

    Raises SubjectError, one sentence, where the call is wrong or the function raises, hangs, or returns no tokens.
    """
    _require(callable(fn), f"fn is a {type(fn).__name__}; pass a function")
    _require(budget in BUDGETS, f"budget is {budget!r}; use one of {', '.join(BUDGETS)}")
    if space == "discrete":
        _whole("vocab", vocab, 2, 8)
        _whole("draft_length", draft_length, 1, 6)
        _require(
            vocab**draft_length <= 4096,
            "vocab ** draft_length must be at most 4096 to be enumerated; use less of either",
        )
        from verify.spaces.discrete import judge_discrete

        with isolated():
            verdict = judge_discrete(fn, vocab=vocab, draft_length=draft_length, budget=budget, seed=seed)
    elif space == "gaussian":
        _whole("dim", dim, 1, 4096)
        _require(covariance in ("equal", "any"), f"covariance is {covariance!r}; use 'equal' or 'any'")
        from verify.spaces.gaussian import judge_gaussian

        verdict = judge_gaussian(fn, dim=dim, covariance=covariance, budget=budget, seed=seed)
    else:
        raise SubjectError(f"space is {space!r}; use 'discrete' or 'gaussian' (a whole decoder: check_decoder)")
    return _with_import_draws(fn, verdict)


def check_decoder(
    fn: Callable[..., Any], *, vocab: int = 3, length: int = 4, budget: str = "quick", seed: int = 0
) -> Verdict:
    """Decide whether a decoding function emits exactly its target's sequences.

    ``fn(target, drafter, length)`` returns ``length`` ids; ``target(prefix: tuple[int, ...])`` and ``drafter(prefix)``
    give Tensors (V,) of probabilities. Raises SubjectError as ``check_verifier`` does.
    """
    _require(callable(fn), f"fn is a {type(fn).__name__}; pass a function")
    _require(budget in BUDGETS, f"budget is {budget!r}; use one of {', '.join(BUDGETS)}")
    _whole("vocab", vocab, 2, 8)
    _whole("length", length, 1, 16)
    from verify.spaces.decoder import judge_decoder

    with isolated():
        return _with_import_draws(fn, judge_decoder(fn, vocab=vocab, length=length, budget=budget, seed=seed))


def assert_lossless(fn: Callable[..., Any], space: str = "discrete", **options: Any) -> Verdict:
    """Raise AssertionError unless ``fn`` is judged lossless; its message is the verdict with the counterexample.

    Takes the arguments of ``check_verifier``, or with ``space="decoder"`` those of ``check_decoder``. Returns the
    verdict.
    """
    verdict = check_decoder(fn, **options) if space == "decoder" else check_verifier(fn, space, **options)
    if not verdict.lossless:
        raise AssertionError(str(verdict))
    return verdict


def _with_import_draws(fn: Any, verdict: Verdict) -> Verdict:
    """Values drawn while the function's file was loaded are constants to every run: then nothing is exact for good."""
    draws = _home(fn).get("__specproof_import_draws__", ())
    if not draws or verdict.status != "lossless":
        return verdict
    note = f"the function's file {'; '.join(draws)}: another import is another function; draw inside the call instead"
    return replace(
        verdict, status="inconclusive", evidence="enumeration", bias_lower=0.0, bias_upper=1.0,
        needs="move the draws from import time into the function", notes=(*verdict.notes, note),
    )  # fmt: skip


def _home(fn: Any) -> dict[str, Any]:
    """The names of the module that a function, a partial, a method or a callable object is defined in."""
    fn = getattr(fn, "func", fn)
    fn = getattr(fn, "__func__", fn)
    if hasattr(fn, "__globals__"):
        scope: dict[str, Any] = fn.__globals__
        return scope
    return vars(sys.modules.get(type(fn).__module__, sys))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SubjectError(message)


def _whole(name: str, value: Any, least: int, most: int) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    _require(whole and least <= value <= most, f"{name} is {value!r}; give a whole number from {least} to {most}")
