"""Unmodified functions at the full vocabulary: what they accept, and what they replace it by, recovered and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distributions.tape import GeneratorTape
from verify.foreign.interpose import Room
from verify.foreign.leaf import NotUnderstood
from verify.vocabulary.answer import Answer, ask
from verify.vocabulary.identity import TOLERANCE, Identity, check_identity
from verify.vocabulary.precision import HALF, relative, spacing


@dataclass(frozen=True, eq=False)
class Probe:
    """What was recovered of a function on one pair of tables, and what follows.

    ``tokens`` (n,): the drafted tokens tried; ``accept`` (n,): with which probability each is emitted without a draw;
    ``replace`` (V,): the law drawn from otherwise, if it is one for all of them (``shared``); ``seen``: the share of
    drafts that the tokens are. ``lower`` and ``upper`` bound the total variation of the first emitted token's law
    from the target's, whatever is done with the tokens not tried (the upper one, and ``lower`` where it says so,
    provided that the replacement is ``shared`` by those too). ``identity``: the same with the tokens not tried
    accepted like those tried; None unless shared. ``bonus``: TV of the law after acceptance from the target's, NaN if
    none was seen.
    """

    tokens: Tensor
    accept: Tensor
    replace: Tensor | None
    shared: bool
    seen: float
    lower: float
    upper: float
    bonus: float
    identity: Identity | None

    @property
    def status(self) -> str:
        """``lossy``: certified, or by the identity with tokens not tried taken to be accepted like the others;
        ``lossless``: nothing that was seen departs by more than rounding; ``inconclusive`` otherwise.
        """
        if self.lower > TOLERANCE or self.bonus > TOLERANCE:
            return "lossy"
        if self.identity is None:
            return "lossless" if self.upper <= TOLERANCE else "inconclusive"
        return "lossless" if self.identity.lossless else "lossy"


def probe(
    fn: Callable[..., Any],
    draft: Tensor,
    target: Tensor,
    *,
    drawn: Tensor | None = None,
    bonus: Tensor | None = None,
    tokens: int = 48,
    seed: int = 0,
) -> Probe:
    """Recover and check ``fn(draft_tokens [1], draft_probs [1, V], target_probs [2, V]) -> ids`` on tables (V,).

    The function runs in the foreign room, where its coins branch with their exact probabilities; its draws over the
    vocabulary are answered in O(V) (``verify.foreign.wide``). Tried are the tokens with the most draft mass, the most
    of (p - q)+, the highest and lowest p/q, tokens outside the target's support, random drafts and, once the
    replacement is known, those where it departs most from (p - q)+: some ``tokens`` in all. Each run is made three
    times with other answers and must branch alike.

    With o_x the law of the output for draft x, what was tried (X) gives, whatever is done with the rest,

        TV(o, p) >= sum_y (sum_{x in X} q(x) o_x(y) - p(y))+.

    Where all rejections draw from one law r (``shared``), o(y) = q(y) a(y) + (1 - A) r(y) with a known on X and free
    elsewhere; for each A its interval [l(y), h(y)] gives max(sum (l - p)+, sum (p - h)+), the first falling in A and
    the second rising, and the least over A is the bound. What rounding explains is taken off. It does not see what a
    function does at tokens not tried, with drafts of more than one token, or by the values it draws (thinning).

    Raises NotUnderstood where draws have no account; SubjectError where the function fails.
    """
    source = draft if drawn is None else drawn
    q_law, p_law = (table.double() / table.double().sum() for table in (source, target))
    after = target.roll(1) if bonus is None else bonus
    rows = (draft.unsqueeze(0), torch.stack((target, after)))
    each = max(1, tokens // 7)
    with Room(fn) as room:
        found = {token: ask(fn, token, rows, room) for token in _tokens(q_law, p_law, each, seed)}
        first = next((item.drawn[0][1] for item in found.values() if item.drawn), None)
        if first is not None:
            excess = (p_law - q_law).clamp(min=0)
            odd = (first / first.sum() - excess / excess.sum().clamp(min=1e-300)).abs() * (q_law > 0)
            more = [token for token in odd.topk(min(each, len(odd))).indices.tolist() if q_law[token] > 0]
            found |= {token: ask(fn, token, rows, room) for token in more if token not in found}
    if room.escapes:
        raise NotUnderstood("; ".join(dict.fromkeys(room.escapes)))
    return _judge(found, draft, target, q_law, after)


def _tokens(q_law: Tensor, p_law: Tensor, each: int, seed: int) -> list[int]:
    """Stratified tokens that may be drafted, each once."""
    able = q_law > 0
    ratio = torch.where(able & (p_law > 0), p_law / q_law, torch.nan)
    strata = [
        q_law,
        (p_law - q_law) * able,
        torch.where(ratio.isnan(), -torch.inf, ratio),
        torch.where(ratio.isnan(), -torch.inf, -ratio),
        q_law * (p_law == 0),
    ]
    chosen = [place for rank in strata for place in rank.topk(min(each, len(rank))).indices.tolist()]
    chosen += GeneratorTape(seed).categorical("tokens", q_law.expand(each, -1)).tolist()
    return [token for token in dict.fromkeys(chosen) if able[token]]


def _judge(found: dict[int, Answer], draft: Tensor, target: Tensor, q_law: Tensor, after: Tensor) -> Probe:
    """The bounds, from the laws recovered at each token tried."""
    p_law = target.double() / target.double().sum()
    tokens = torch.tensor(list(found))
    accept = torch.tensor([item.fixed.get(token, 0.0) for token, item in found.items()], dtype=torch.float64)
    drawn = [law for item in found.values() for _, law in item.drawn]
    first = drawn[0] if drawn else None
    stray = any(emitted != token for token, item in found.items() for emitted in item.fixed)
    shared = first is not None and not stray and all(torch.equal(law, first) for law in drawn)
    kind = torch.float32 if not _on_grid(accept, draft.dtype) else draft.dtype
    tails = [item.bonus for item in found.values() if item.bonus is not None]
    bonus = max((_apart(tail, after, kind) for tail in tails), default=float("nan"))
    seen_law, seen = torch.zeros_like(p_law), float(q_law[tokens].sum())
    exact = True
    loose = relative(q_law, p_law, kind)
    play = float((p_law * loose).sum()) + spacing(kind)
    for token, item in found.items():
        law = item.law(len(p_law))
        seen_law.add_(law, alpha=float(q_law[token]))
        exact = exact and float((law - p_law).abs().sum() / 2) <= 2 * play
    lower = float((seen_law - p_law).clamp(min=0).sum())
    if first is None or not shared:
        gap = abs(float(draft.double().sum() / target.double().sum()) - 1)
        return Probe(tokens, accept, None, False, seen, max(0.0, lower - play - gap), float(not exact), bonus, None)
    weights = first.to(draft.dtype) if _on_grid(first, draft.dtype) else first
    types = (kind, weights.dtype if weights.dtype in HALF else torch.float32)
    full = _fill(tokens, accept, draft, target, kind)
    identity = check_identity(full, weights, draft, target, drawn=q_law, arithmetic=types)
    lower = max(lower, _least(tokens, accept, first / first.sum(), q_law, p_law)) - float(identity.budget.total[0])
    lower = max(0.0, lower, float(identity.lower[0]) - (1 - seen))
    upper = min(1.0, float(identity.upper[0]) + 1 - seen)
    return Probe(tokens, accept, first, True, seen, lower, upper, bonus, identity)


def _on_grid(values: Tensor, stored: torch.dtype) -> bool:
    """Whether the numbers betray arithmetic in the narrow type that the tables are stored in: all are of it."""
    inside = values[(values > 0) & (values < 1)]
    return stored in HALF and len(inside) > 2 and torch.equal(inside, inside.to(stored).double())


def _apart(tail: Tensor, after: Tensor, kind: torch.dtype) -> float:
    """TV of the bonus law from the target's, beyond rounding."""
    law, wanted = tail / tail.sum(), after.double() / after.double().sum()
    return max(0.0, float((law - wanted).abs().sum() / 2 - (wanted * relative(wanted, wanted, kind)).sum()))


def _fill(tokens: Tensor, accept: Tensor, draft: Tensor, target: Tensor, kind: torch.dtype) -> Tensor:
    """Acceptance of every token: as seen where tried; elsewhere min(1, p/q) if that is what was seen, or else as the
    tokens with the next lower and higher ratio are accepted.
    """
    ratio = (target.double() / draft.double()).nan_to_num(nan=0.0, posinf=torch.inf)
    whole = ratio.clamp(max=1)
    play = relative(draft.double(), target.double(), kind)[tokens] + spacing(kind)
    gap = abs(float(draft.double().sum() / target.double().sum()) - 1)
    if bool(((accept - whole[tokens]).abs() > play + gap).any()):
        order = ratio[tokens].argsort()
        known = np.nan_to_num(ratio[tokens][order].log().numpy(), posinf=1e3, neginf=-1e3)
        every = np.nan_to_num(ratio.log().numpy(), posinf=1e3, neginf=-1e3)
        whole = torch.from_numpy(np.interp(every, known, accept[order].numpy()))
    whole[tokens] = accept
    return whole


def _least(tokens: Tensor, accept: Tensor, replace: Tensor, q_law: Tensor, p_law: Tensor) -> float:
    """The least bias that any acceptance of the tokens not tried leaves: see ``probe``."""
    low_kept, high_kept = torch.zeros_like(q_law), q_law.clone()
    low_kept[tokens] = high_kept[tokens] = q_law[tokens] * accept
    low, high = float(low_kept.sum()), min(1.0, float(high_kept.sum()))
    for _ in range(40):
        middle = (low + high) / 2
        surplus = float((low_kept + (1 - middle) * replace - p_law).clamp(min=0).sum())
        deficit = float((p_law - high_kept - (1 - middle) * replace).clamp(min=0).sum())
        low, high = (middle, high) if surplus > deficit else (low, middle)
    return min(surplus, deficit)
