"""The public surface: a function in, a verdict out."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

from verify.errors import SubjectError, article
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
    until: float | None = None,
    seconds: float | None = None,
) -> Verdict:
    """Decide whether a verification function is lossless.

    ``space="discrete"``: ``fn(draft_tokens: LongTensor[gamma], draft_probs: Tensor[gamma, V], target_probs:
    Tensor[gamma+1, V])`` returns 1 to gamma + 1 emitted ids; judged at ``vocab`` and ``draft_length``.
    ``space="gaussian"``: ``fn(draft_value: Tensor[rows, dim], draft: Distribution, target: Distribution) ->
    Tensor[rows, dim]``, with one unbatched pair of torch laws a call; ``covariance="equal"`` both sigma^2 I,
    ``"any"`` unequal and full as well. ``fn`` is not edited; it draws with torch, numpy or the standard library.
    ``budget`` is ``quick`` or ``thorough``; ``until``, in the Gaussian space: rows are added until the bound is at most
    that, for at most ``seconds`` (600 by default).

    Raises SubjectError, one sentence, where the call is wrong or the function raises, hangs, or returns no tokens.
    """
    _require(callable(fn), f"fn is {article(fn)}; pass a function")
    _whole("seed", seed, 0, 2**62)
    _require(budget in BUDGETS, f"budget is {budget!r}; use one of {', '.join(BUDGETS)}")
    _require(
        until is None or space == "gaussian", "until is for sampled evidence, and this is enumerated; leave it out"
    )
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

        if until is None:
            verdict = judge_gaussian(fn, dim=dim, covariance=covariance, budget=budget, seed=seed)
        else:
            from verify.spaces.gaussian_until import judge_gaussian_until

            _positive("until", until)
            options: dict[str, Any] = {"dim": dim, "covariance": covariance, "seed": seed}
            verdict = judge_gaussian_until(fn, until=until, seconds=seconds, **options)
    else:
        raise SubjectError(
            f"space is {space!r}; use 'discrete' or 'gaussian' (a whole decoder: check_decoder; its draws alone: "
            "check_sampler)"
        )
    return _with_import_draws(fn, verdict)


def check_decoder(
    fn: Callable[..., Any], *, vocab: int = 3, length: int = 4, budget: str = "quick", seed: int = 0
) -> Verdict:
    """Decide whether a decoding function emits exactly its target's sequences.

    ``fn(target, drafter, length)`` returns ``length`` ids; ``target(prefix: tuple[int, ...])`` and ``drafter(prefix)``
    give Tensors (V,) of probabilities. Raises SubjectError as ``check_verifier`` does.
    """
    _require(callable(fn), f"fn is {article(fn)}; pass a function")
    _whole("seed", seed, 0, 2**62)
    _require(budget in BUDGETS, f"budget is {budget!r}; use one of {', '.join(BUDGETS)}")
    _whole("vocab", vocab, 2, 8)
    _whole("length", length, 1, 16)
    from verify.spaces.decoder import judge_decoder

    with isolated():
        return _with_import_draws(fn, judge_decoder(fn, vocab=vocab, length=length, budget=budget, seed=seed))


def check_sampler(
    sampler: Callable[[int, int], Any],
    target: Any,
    *,
    epsilon: float = 0.01,
    budget: str = "quick",
    until: float | None = None,
    seconds: float | None = None,
    seed: int = 0,
    metric: str | None = "ks",
    executor: Executor | None = None,
) -> Verdict:
    """Decide from its draws alone whether a sampler's law is its target's.

    ``sampler(rows: int, seed: int)`` returns a tensor (rows, *event) of independent rows; it may draw from ``seed``, or
    from the global generators of torch, numpy and the standard library, which are seeded for each call. ``target``: a
    torch distribution or a law of this project, of batch shape (), or another sampler of the same form.

    ``lossy``: a check rejects, and rejects again on fresh rows, false alarms at most 1e-6 in all; ``bias_lower`` is a
    certified lower bound on the total variation. ``lossless``: the certified bound in ``metric`` (confidence 1 - 1e-6;
    None: in the metric where it is smallest) is at most ``epsilon``. ``inconclusive``: neither, and ``needs`` says
    how many rows would certify, and how many reject. ``budget``: ``quick`` or ``thorough``, for the first stage.
    ``until``: draw until the bound is at most that, or the sampler is convicted, or ``seconds`` have passed (600 by
    default), or somebody interrupts. ``executor``: any of concurrent.futures, for shards; both functions must then be
    importable by its workers.

    Raises SubjectError, one sentence, where the call is wrong, or a function raises or returns another shape.
    """
    _require(callable(sampler), f"sampler is {article(sampler)}; pass a function (rows, seed)")
    _whole("seed", seed, 0, 2**62)
    _require(budget in BUDGETS, f"budget is {budget!r}; use one of {', '.join(BUDGETS)}")
    _positive("epsilon", epsilon)
    for name, value in (("until", until), ("seconds", seconds)):
        if value is not None:
            _positive(name, value)
    from verify.sampler import judge_sampler

    verdict = judge_sampler(
        sampler, target, epsilon=epsilon, budget=budget, until=until, seconds=seconds, seed=seed, metric=metric,
        executor=executor,
    )  # fmt: skip
    return _with_import_draws(sampler, verdict)


def assert_lossless(fn: Callable[..., Any], space: str = "discrete", **options: Any) -> Verdict:
    """Raise AssertionError unless ``fn`` is judged lossless; its message is the verdict with the counterexample.

    Takes the arguments of ``check_verifier``, or with ``space="decoder"`` those of ``check_decoder``, with
    ``space="sampler"`` those of ``check_sampler``. Returns the verdict.
    """
    judges: dict[str, Callable[..., Any]] = {"decoder": check_decoder, "sampler": check_sampler}
    known = list(inspect.signature(judges.get(space, check_verifier)).parameters)[1:]
    strange = [name for name in options if name not in known]
    _require(not strange, f"{', '.join(strange)} is no option of space {space!r}; there are {', '.join(known)}")
    if space in ("decoder", "sampler"):
        _require(space != "sampler" or "target" in options, "a sampler is judged against a target; pass target=...")
        verdict = (check_decoder if space == "decoder" else check_sampler)(fn, **options)
    else:
        verdict = check_verifier(fn, space, **options)
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


def _positive(name: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    _require(number and 0 < value < math.inf, f"{name} is {value!r}; give a number above 0")


def _whole(name: str, value: Any, least: int, most: int) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    _require(whole and least <= value <= most, f"{name} is {value!r}; give a whole number from {least} to {most}")
