"""Drawing from the residual law (target - draft)+, and closing a chain with it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Draft, Outcome
from verify.tables import Vocabulary, drawn, wide

Replace = Callable[[Law, Law, Tape, str], Tensor]


class ThinningCapped(RuntimeError):
    """Thinning passed its cap with rows unfinished; nothing is padded, because padding would bias the output."""


def log_ratio(value: Tensor, target: Law, draft: Law) -> Tensor:
    """log target(value) - log draft(value), batch-wise; -inf wherever the target gives no mass, whatever the draft."""
    top = target.log_prob(value)
    return torch.where(torch.isneginf(top), top, top - draft.log_prob(value))


def excess(target: Vocabulary, draft: Vocabulary, log_weight: Tensor | None = None) -> Tensor:
    """(weight target - draft)+, token by token (*batch, V), divided by max(1, weight), so that the weight may be inf.

    ``log_weight`` (*batch) is the logarithm of the weight, and 0 where it is left out.
    """
    if log_weight is None:
        return (target.probs - draft.probs).clamp(min=0)
    log_weight = log_weight.unsqueeze(-1)
    return (log_weight.clamp(max=0).exp() * target.probs - (-log_weight).clamp(max=0).exp() * draft.probs).clamp(min=0)


def residual_law(target: Vocabulary, draft: Vocabulary, log_weight: Tensor | None = None) -> Categorical:
    """The law proportional to (weight target - draft)+ on a finite vocabulary; the weight is 1 unless given.

    Formula: (p - q)+ / TV(p, q) (Leviathan et al. 2211.17192, eq. 2; Chen et al. 2302.01318); with a weight, the
    residual of a block (Sun et al. 2403.10444). A row whose residual has no mass is answered with the target's own
    law: exact arithmetic never reaches it, rounding of two normalised rows reaches it with a probability of order
    1e-16, and the target never emits a token it gives no mass.
    """
    over = excess(target, draft, log_weight)
    empty = over.sum(-1, keepdim=True) <= 0
    return Categorical(torch.where(empty, target.probs, over))


def thin(target: Law, draft: Law, tape: Tape, site: str = "residual", cap: int = 100_000, share: float = 1.0) -> Tensor:
    """One value for each row of the law proportional to (target - share draft)+, by thinning draws of the target.

    Z ~ target is kept with probability (1 - share draft(Z) / target(Z))+, and only unfinished rows draw again (lemma
    L8: with the whole draft, given a rejection 1 / TV draws on average; unconditionally one for each coin examined,
    with infinite variance as TV -> 0). Both laws have batch (rows,). Raises ThinningCapped after ``cap`` draws in one
    row.
    """
    value, left = thinned(target, draft, math.log(share), tape, site, cap)
    if len(left):
        raise ThinningCapped(
            f"{len(left)} of {value.shape[0]} rows of {site!r} kept none of {cap} draws: the laws overlap almost "
            "wholly, or log_prob is not the law that sample() draws from; raise cap, or draw this residual in closed "
            "form"
        )
    return value


def thinned(
    target: Law, draft: Law, log_share: float | Tensor, tape: Tape, site: str, tries: int
) -> tuple[Tensor, Tensor]:
    """Draws of the target, one for each row, as ``thin`` keeps them, and the rows (K,) that kept none of ``tries``.

    ``log_share``: of all rows, or one for each (rows,). What a row holds that kept none means nothing.
    """
    proposal = target.sample(tape, f"{site}.proposal")
    value = proposal.clone()
    left = torch.arange(value.shape[0], device=value.device)
    for tried in range(1, tries + 1):
        share = log_share[left] if isinstance(log_share, Tensor) else log_share
        keep = -torch.expm1((share - log_ratio(proposal, target[left], draft[left])).clamp(max=0))
        kept = tape[left].coin(f"{site}.keep", keep)
        value[left[kept]] = proposal[kept]
        left = left[~kept]
        if tried == tries or not len(left):
            break
        proposal = target[left].sample(tape[left], f"{site}.proposal")
    return value, left


def residual(target: Law, draft: Law, tape: Tape, site: str = "residual") -> Tensor:
    """One value for each row from (target - draft)+: closed form on a vocabulary, thinning for any other pair."""
    if isinstance(target, Vocabulary) and isinstance(draft, Vocabulary):
        return residual_law(target, draft).sample(tape, site)
    return thin(target, draft, tape, site)


def conclude(
    draft: Draft, target: Law, accept: Tensor, log_accept: Tensor, tape: Tape, replace: Replace = residual
) -> Outcome:
    """The outcome of a chain: its longest accepted prefix, then a replacement at the first rejection or a bonus.

    ``accept`` (rows, N) are the coins of all nodes; those after the first tail are ignored. Replacements and bonuses
    are drawn for the rows that need them only. Raises ValueError where the draft is not a chain.
    """
    nodes = accept.shape[1]
    if draft.parent.tolist() != list(range(-1, nodes - 1)):
        raise ValueError("this verifier reads a chain; draft with parent -1, 0, 1, ...")
    kept = accept.cumprod(1)
    count = kept.sum(1)
    value = torch.cat([draft.value, draft.value[:, -1:]], 1)
    short = torch.nonzero(count < nodes).squeeze(1)
    if len(short):
        node = count[short]
        if replace is residual and wide(target) and wide(draft.law):
            value[short, node] = drawn(target, draft.law, short, node, tape, "residual")
        else:
            value[short, node] = replace(target[short, node], draft.law[short, node], tape[short], "residual")
    full = torch.nonzero(count == nodes).squeeze(1)
    if len(full):
        if wide(target):
            value[full, nodes] = drawn(target, None, full, count[full], tape, "bonus")
        else:
            value[full, nodes] = target[full, nodes].sample(tape[full], "bonus")
    return Outcome(value, count + 1, kept.bool(), log_accept)
