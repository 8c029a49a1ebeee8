"""The smallest problem on which a continuous sampler is certified to be wrong, as code that shows it."""

from __future__ import annotations

from typing import Any

from verify.errors import SubjectError
from verify.records import Counterexample
from verify.spaces.gaussian_pairs import pairs
from verify.spaces.gaussian_rows import Rows, Subject, call_sizes
from verify.spaces.gaussian_witnesses import witnesses
from verify.statistics.witness import Bias, measure

SETTING = """import torch
from torch.distributions import Independent, MultivariateNormal, Normal

torch.manual_seed(0)
"""


def best(biases: list[Bias[Any]]) -> Bias[Any] | None:
    """The largest certified bias of single rows, else of whole calls, else the event that looked worst."""
    of_rows = [bias for bias in biases if not bias.witness.joint and bias.lower > 0]
    return next(iter(of_rows or biases), None)


def counterexample(
    subject: Subject, biases: list[Bias[Any]], covariance: str, count: int, delta: float, seed: int
) -> Counterexample | None:
    """The best of ``biases``, on the same pair in as few dimensions as the function takes and the bias shows in."""
    shown = best(biases)
    if shown is None:
        return None
    if isinstance(shown.sample, Rows):
        for dim in range(1, min(3, shown.sample.pair.dim)):
            smaller = _in_dimension(subject, shown, dim, covariance, min(count, 16_384), delta, seed + 10 * dim)
            if smaller is not None:
                shown = smaller
                break
    pair, witness = shown.sample.pair, shown.witness
    output = f'print(event.double().mean().item(), "; the target allows", {witness.mass})'
    return Counterexample(
        bias=shown.lower,
        snippet=f"{SETTING}{pair.source(subject.dtype)}\n{witness.snippet}\n{output}",
        where=f"{pair.name}: {shown}",
        sizes={"dim": pair.dim},
        found={"event": shown.found},
        wanted={"event": witness.mass},
    )


def _in_dimension(
    subject: Subject, shown: Bias[Any], dim: int, covariance: str, count: int, delta: float, seed: int
) -> Bias[Any] | None:
    """The same problem in fewer dimensions, where the function takes it and a bias is certified there too."""
    same = [pair for pair in pairs(dim, covariance) if pair.name == shown.sample.pair.name]
    try:
        rows, fresh = (subject.run(same[0], call_sizes(count), seed + turn) for turn in range(2))
    except (SubjectError, IndexError):
        return None
    of_rows = {"support", "products"} if dim > 1 else {"support"}
    events = witnesses(rows, {"row_dependence"} if shown.witness.joint else of_rows)
    found = best(measure([(event, fresh) for event in events], delta))
    return found if found is not None and found.lower > 0 else None
