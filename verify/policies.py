"""Laws that drafts are really drawn from, where that is not the drafter's own law."""

from __future__ import annotations

import torch

from distributions.categorical import Categorical
from distributions.law import Law


def finite(law: Law) -> Categorical:
    """The law, if it has a finite vocabulary. Raises TypeError otherwise."""
    if not isinstance(law, Categorical):
        raise TypeError(f"this needs a Categorical law and got a {type(law).__name__}")
    return law


def greedy(law: Law) -> Categorical:
    """The point mass at the most probable token, the first of several."""
    probs = finite(law).probs
    return Categorical(torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]))


def top_half(law: Law) -> Categorical:
    """Top-k with k half of the vocabulary, rounded up."""
    probs = finite(law).probs
    kept = probs.topk((probs.shape[-1] + 1) // 2, -1).indices
    return Categorical(torch.zeros_like(probs).scatter(-1, kept, probs.gather(-1, kept)))


def tempered(law: Law, temperature: float) -> Categorical:
    """The law proportional to probs ** (1 / temperature)."""
    probs = finite(law).probs
    return Categorical((probs / probs.amax(-1, keepdim=True)) ** (1 / temperature))


def rounded(law: Law) -> Categorical:
    """The probabilities rounded to bfloat16: eight significant bits."""
    return Categorical(finite(law).probs.bfloat16())


def widened(law: Law) -> Categorical:
    """Half of the law and half of the uniform one: every token may be drafted."""
    probs = finite(law).probs
    return Categorical(probs + 1 / probs.shape[-1])
