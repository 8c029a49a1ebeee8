"""Prefixes of tokens as numbers, and a model's laws after each of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.model import Model


def encode(tokens: Tensor, vocab: int) -> Tensor:
    """The number (*batch) whose digits in base ``vocab``, first token first, are ``tokens`` (*batch, L)."""
    code = torch.zeros(tokens.shape[:-1], dtype=torch.long)
    for token in tokens.unbind(-1):
        code = code * vocab + token
    return code


def digits(code: Tensor, length: int, vocab: int) -> Tensor:
    """The tokens (*batch, L) of a number: the inverse of ``encode``."""
    return code.unsqueeze(-1) // vocab ** torch.arange(length - 1, -1, -1) % vocab


def conditionals(target: Model[Any], state: Any, rows: int, length: int) -> list[Tensor]:
    """The target's law (rows, V**i, V) of token i after each prefix of i tokens, for i below ``length``."""
    found: list[Tensor] = []
    vocab = table(target.law(target.select(state, torch.arange(rows)))).shape[-1]
    for place in range(length):
        size = vocab**place
        here = target.select(state, torch.arange(rows).repeat_interleave(size))
        if place:
            prefix = digits(torch.arange(size), place, vocab).repeat(rows, 1)
            here = target.extend(here, prefix, torch.full((rows * size,), place))
        found.append(table(target.law(here))[:, 0].reshape(rows, size, vocab))
    return found


def table(law: Any) -> Tensor:
    """The probabilities of a law on a finite vocabulary. Raises TypeError for any other."""
    if not isinstance(law, Categorical):
        raise TypeError(f"enumeration needs models over a finite vocabulary and got a {type(law).__name__}")
    return law.probs


def product(wanted: list[Tensor]) -> Tensor:
    """The law (rows, V**L) of L tokens from their ``conditionals``."""
    law = wanted[0][:, 0]
    for step in wanted[1:]:
        law = (law.unsqueeze(-1) * step).flatten(1)
    return law
