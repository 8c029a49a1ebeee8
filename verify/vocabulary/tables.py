"""Tables of probabilities as an engine stores them, and what a rule makes of them, as rows in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from verify.errors import article

Rule = Callable[[Tensor, Tensor], Tensor] | Tensor


def contexts(table: Any, name: str) -> Tensor:
    """A table (V,) or (C, V) as (C, V). Raises ValueError for anything but a tensor of a floating dtype."""
    if not isinstance(table, Tensor):
        raise ValueError(f"{name} is {article(table)}; give a tensor of probabilities")
    if not table.is_floating_point():
        raise ValueError(f"{name} is of {table.dtype}; give probabilities in a floating dtype")
    return table.reshape(-1, table.shape[-1])


def rows_of(table: Tensor, name: str) -> Tensor:
    """The table in float64. Raises ValueError unless its rows are non-negative and finite, with mass."""
    wide = table.double()
    least, total = wide.amin(-1), wide.sum(-1)
    if not bool((least >= 0).all() and (total > 0).all() and torch.isfinite(total).all()):
        raise ValueError(f"{name} must be finite and non-negative with mass in every row; mend the table")
    return wide


def applied(rule: Rule, draft: Tensor, target: Tensor) -> tuple[Tensor, torch.dtype]:
    """The rule's values (C, V) in float64, and the dtype they came in; a function is asked row by row."""
    if callable(rule):
        answers = [rule(*rows) for rows in zip(draft, target, strict=True)]
        if not all(isinstance(answer, Tensor) for answer in answers):
            raise ValueError(f"accept and replace must return tensors, and one returned {article(answers[0])}")
        found = torch.stack(answers)
    else:
        found = rule.reshape(-1, rule.shape[-1])
    if found.shape != target.shape or not found.dtype.is_floating_point:
        raise ValueError(f"accept and replace must return {target.shape[-1]} floating-point values, one for each token")
    return found.double(), found.dtype


def replacement(weights: Tensor, rejection: Tensor, wanted: Tensor, small: float) -> Tensor:
    """The weights normalised; the target where nothing is ever replaced."""
    total = weights.sum(-1)
    bad = ~(torch.isfinite(total) & (total > 0) & (weights.amin(-1) >= 0))
    if bool(bad.any()):
        if bool((bad & (rejection > 64 * small)).any()):
            at = int((bad & (rejection > 64 * small)).long().argmax())
            raise ValueError(
                f"replace has no mass, or a bad weight, in context {at}, which rejects with probability "
                f"{float(rejection[at]):.3g}; return the weights that are really drawn from"
            )
        weights = torch.where(bad.unsqueeze(-1), wanted, weights)
    return weights / weights.sum(-1, keepdim=True)
