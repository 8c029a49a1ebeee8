"""Block verification: a draft is kept for as long as its whole prefix, and not each token alone, deserves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude, excess, log_ratio, residual_law

Mass = Callable[[Any, Any, Tensor], Tensor]
Rest = Callable[[Any, Any, Tensor], Law]


@dataclass(frozen=True)
class Block:
    """Toss a coin for every prefix of the draft, and keep the longest one whose coin succeeds; shorter ones that failed
    do not matter (Sun et al. 2403.10444, algorithm 2; lemma A2).

    With q = draft, p = target: w_0 = 1 and w_i = min(1, w_{i-1} p_i(x_i) / q_i(x_i)) is what prefix i is worth; S_i =
    sum (w_i p_{i+1} - q_{i+1})+; the coins are h_i = S_i / (S_i + 1 - w_i) and h_N = w_N. The replacement after i
    kept tokens is drawn from (w_i p_{i+1} - q_{i+1})+.

    Why it is exact. Claim: given x_1..x_i, at least i tokens are kept with probability w_i. It holds at N. If it holds
    at i + 1, then more than i are kept with probability sum q min(1, w_i p / q) = w_i - S_i, so that the coin for i
    is needed with probability 1 - w_i + S_i and adds S_i: the claim holds at i. Position i + 1 is therefore filled by
    drafts, q min(1, w_i p / q) = min(q, w_i p), and by replacements, S_i times their law: together w_i p, which given
    that it is filled is p. Never shorter in the mean than token by token, since w_i is at least the product of
    min(1, p / q). Raises TypeError on laws that are not Categorical, whose S_i has no formula here.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="Sun et al. 2403.10444, algorithm 2", laws="categorical")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        target, draft_law = both_categorical("block", target, draft)
        ratio = log_ratio(draft.value, target[:, :-1], draft_law)
        weights = [torch.zeros_like(ratio[:, 0])]
        for step in ratio.unbind(1):
            weights.append(times(weights[-1], step).clamp(max=0))
        return keep_longest(draft, target, torch.stack(weights, 1), tape)


def both_categorical(name: str, target: Law, draft: Draft) -> tuple[Categorical, Categorical]:
    """The target's and the draft's law. Raises TypeError where one of them is not Categorical."""
    for law in (target, draft.law):
        if not isinstance(law, Categorical):
            raise TypeError(f"{name} needs Categorical laws and got {type(law).__name__}; use rejection")
    return target, draft.law  # type: ignore[return-value]


def times(log_weight: Tensor, log_factor: Tensor) -> Tensor:
    """The logarithm of a product of which a factor 0 makes 0, though the other one be infinite."""
    nothing = torch.isneginf(log_weight) | torch.isneginf(log_factor)
    return torch.where(nothing, log_factor.new_full((), -torch.inf), log_weight + log_factor)


def stop_chance(log_weight: Tensor, mass: Tensor) -> Tensor:
    """h = S / (S + 1 - w), the chance of stopping at a prefix of weight w given that no longer one is kept.

    ``mass`` is S = sum (w target - draft)+. A weight of 1 or more stops for certain.
    """
    missing = -torch.expm1(log_weight.clamp(max=0))
    return torch.where(missing > 0, mass / (mass + missing), 1.0)


def log_any(chance: Tensor) -> Tensor:
    """log of the probability that any of independent coins (..., n) succeeds."""
    return torch.log(-torch.expm1(torch.log1p(-chance).sum(-1)))


def _mass(target: Categorical, draft: Categorical, log_weight: Tensor) -> Tensor:
    return excess(target, draft, log_weight).sum(-1)


def keep_longest(
    draft: Draft, target: Law, log_weight: Tensor, tape: Tape, mass_of: Mass = _mass, rest: Rest = residual_law
) -> Outcome:
    """Toss the coins of all prefixes, given the ``log_weight`` (rows, N + 1) of each, and conclude at the longest.

    ``mass_of`` and ``rest``, of target, draft and log weight: S, and the law proportional to (w target - draft)+.
    """
    nodes = draft.value.shape[1]
    inner = log_weight[:, 1:nodes]
    mass = mass_of(target[:, 1:nodes], draft.law[:, 1:], inner)
    chance = torch.cat([stop_chance(inner, mass), log_weight[:, nodes:].clamp(max=0).exp()], 1)
    kept = tape.coin("accept", chance).flip(1).cummax(1).values.flip(1)
    reach = torch.stack([log_any(chance[:, node:]) for node in range(nodes)], 1)
    before = torch.nn.functional.pad(reach[:, :-1], (1, 0))  # that a round begins is certain
    log_accept = torch.where(torch.isneginf(reach), reach, (reach - before).clamp(max=0))
    count = kept.sum(1)
    short = torch.nonzero(count < nodes).squeeze(1)
    weight = log_weight[short, count[short]]

    def replace(law: Any, prior: Any, some: Tape, site: str) -> Tensor:
        sampled: Tensor = rest(law, prior, weight).sample(some, site)
        return sampled

    return conclude(draft, target, kept, log_accept, tape, replace)
