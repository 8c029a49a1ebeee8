"""Races: both laws of a pair run on the same exponentials, so that their winners often agree, and what is then known.

A race has the winner argmin E_i / w_i, which has law w. The functions here compute, and never draw; the conditional
laws are for a draft that has been drawn already, whose exponentials are filled in after the fact.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


def race(probs: Tensor, exponentials: Tensor) -> Tensor:
    """The winner of the exponential race, argmin E / probs, which has law ``probs``; a token of no mass never wins.

    Both laws of a pair run on one set of exponentials (Daliri, Musco and Suresh 2408.07978). It is the Gumbel argmax.
    """
    return torch.where(probs > 0, exponentials / torch.where(probs > 0, probs, 1.0), math.inf).argmin(-1)


def race_match(target: Tensor, draft: Tensor) -> Tensor:
    """The probability that both races have one winner, batch-wise: sum_i 1 / sum_j max(p_j / p_i, q_j / q_i).

    Over the tokens to which both laws give mass (lemma A10); at least (1 - TV) / (1 + TV).
    """
    both = (target > 0) & (draft > 0)
    safe = [torch.where(both, probs, 1.0) for probs in (target, draft)]
    ratios = [probs.unsqueeze(-2) / one.unsqueeze(-1) for probs, one in zip((target, draft), safe, strict=True)]
    return torch.where(both, 1 / torch.maximum(*ratios).sum(-1), 0.0).sum(-1)


def race_given(value: Tensor, target: Tensor, draft: Tensor) -> Tensor:
    """The law (*batch, V) of the target's winner, given that ``value`` (*batch) won the draft's race on the same noise.

    Let p = target, q = draft. Tokens i and j win at the times s = E_i / q_i and t = E_j / p_j, and no other token is
    earlier in either race iff E_k >= max(q_k s, p_k t) for all k. Integrating the density over s and t with the ratio
    fixed leaves, for i != j, q_i p_j times the integral of dr / D(r)^2 over q_j / p_j < r < q_i / p_i, nothing where
    this is empty, with D(r) = sum_k max(q_k, p_k r); and 1 / sum_k max(p_k / p_i, q_k / q_i) for i = j (Daliri, Musco
    and Suresh 2408.07978 have the diagonal; lemma A10). Ratios overflow, so r = w / (1 - w) here: dr / D(r)^2 becomes
    dw / M(w)^2 with M(w) = sum_k max(q_k (1 - w), p_k w), at least 1/2, and token k stands at w_k = q_k / (p_k + q_k).
    M is linear between these places, where dw / M^2 integrates to (b - a) / (M(a) M(b)). So, given i, token j != i has
    p_j (G(w_i) - G(w_j))+ with G the integral from 0, and i itself (1 - w_i) / M(w_i). O(V log V). ``target`` and
    ``draft`` are normalised probabilities (*batch, V). A ``value`` that the draft cannot have is answered by a limit.
    """
    total = target + draft
    safe = torch.where(total > 0, total, 1.0)
    share = torch.where(total > 0, draft / safe, 1.0)
    rest = target / safe  # 1 - share, without cancellation
    share, order = share.sort(-1)
    after = pad(draft.gather(-1, order)[..., 1:], (0, 1)).flip(-1).cumsum(-1).flip(-1)
    most = rest.gather(-1, order) * after + share * target.gather(-1, order).cumsum(-1)
    area = pad(share.diff(dim=-1) / (most[..., 1:] * most[..., :-1]), (1, 0)).cumsum(-1)
    place = order.argsort(-1)
    area, most = area.gather(-1, place), most.gather(-1, place)
    mine = value.unsqueeze(-1)
    law = target * (area.gather(-1, mine) - area).clamp(min=0)
    return law.scatter(-1, mine, rest.gather(-1, mine) / most.gather(-1, mine))


def race_coupling(target: Tensor, draft: Tensor) -> Tensor:
    """The joint law (*batch, V, V) of the winners of both races, draft's first; its diagonal sums to ``race_match``."""
    vocab = draft.shape[-1]
    every = torch.arange(vocab, device=draft.device).expand(draft.shape)
    wide = [law.unsqueeze(-2).expand(*draft.shape, vocab) for law in (target, draft)]
    return draft.unsqueeze(-1) * race_given(every, *wide)


STEP = 1 / 6
"""The step of ``list_given`` in the logarithm of time: aliasing below 4e-15 of every value for up to ten siblings."""
TIMES = torch.exp(STEP * torch.arange(-228, 25, dtype=torch.float64))
"""Its times, from 3e-17 to 55: what happens before and after has a probability below 1e-16 for each sibling."""


def list_given(values: Tensor, target: Tensor, draft: Tensor) -> Tensor:
    """The law (*batch, V) of argmin_i min_k E_i^k / p_i, given that ``values`` (*batch, K) won the K draft races
    argmin_i E_i^k / q_i, the noises of which are independent (list matching, 2506.05632; lemma A11).

    With p = target, q = draft: race k ends at a time s ~ Exp(1), and then E_i^k = q_i s for its winner x, q_i s + fresh
    noise for the others. Hence E_i^k >= p_i t for all i with probability S_k(t) = t times the integral of exp(-t D(v))
    over v = s / t from a_x on, where D(v) = sum_i max(p_i, q_i v) and a_i = p_i / q_i. Y = y at the time t has the
    density of a first passage, - p_y d/d(p_y t) of the product of the S_k: sum_k C_k(y) prod_{l != k} S_l, where C_k(y)
    is p_y t times the same integral over a_x < v < a_y, nothing where this is empty, and a_x exp(-t D(a_x)) for y = x.

    D is linear between sorted a_i, so that S and C are finite sums of positive terms. Multiplied out, the integral over
    t is rational, but it has V^K terms that cancel where masses are small. So t is integrated by the trapezium rule in
    log t. Every integrand is a positive mixture of t^n exp(-Z t), n <= K: in log t it is analytic for imaginary parts
    below pi / 2, and in the strip of half-width c at most cos(c)^-(n + 1) times as large as on the line. The rule is
    therefore off by at most 2 cos(c)^-(K + 1) / (exp(2 pi c / h) - 1) of each value (Trefethen and Weideman 2014,
    theorem 5.1), whatever the laws, and the cut tails take at most 1e-16 K. Times are counted in units of the smallest
    of 1 and 1 / a_x, so that this holds of unlikely ``values`` too; a draft's mass below 1e-300 counts as 1e-300.
    ``target`` and ``draft`` are normalised probabilities (*batch, V). Raises ValueError beyond ten siblings.
    """
    if values.shape[-1] > 10:
        raise ValueError(f"the law given {values.shape[-1]} siblings is not exact to rounding; draft at most 10")
    draft = draft.scatter(-1, values, draft.gather(-1, values).clamp(min=1e-300))
    count, won = values.shape[-1], [law.gather(-1, values) for law in (draft, target)]
    unit = torch.where(won[1] > won[0], won[0] / torch.where(won[1] > 0, won[1], 1.0), 1.0).amin(-1, keepdim=True)
    target = target * unit
    place = torch.where(draft > 0, target / torch.where(draft > 0, draft, 1.0), math.inf)
    place = torch.where(target > 0, place, 0.0).clamp(max=1e30)  # exp(-t v) is 0 before
    place, order = place.sort(-1)
    rank = order.argsort(-1)
    slope = draft.gather(-1, order).cumsum(-1)
    level = pad(target.gather(-1, order)[..., 1:], (0, 1)).flip(-1).cumsum(-1).flip(-1) + place * slope
    width = place.diff(dim=-1)
    start = rank.gather(-1, values)  # (*batch, K)
    below = torch.arange(place.shape[-1] - 1, device=place.device) < start.unsqueeze(-1)
    first, rise = (part.gather(-1, start) for part in (place, level))
    others = torch.eye(count, dtype=torch.bool, device=place.device)
    passing, hitting = torch.zeros_like(draft), torch.zeros_like(rise)
    for time in torch.split(TIMES.to(place), max(1, 100_000 // max(1, below.numel()))):
        time = time.reshape(-1, *(1,) * place.dim())  # (M, *batch, V)
        steep = time * slope[..., :-1] * width
        part = time * width * torch.where(steep > 0, -torch.expm1(-steep) / torch.where(steep > 0, steep, 1.0), 1.0)
        part = part * torch.exp(-time * level[..., :-1])
        sums = pad(torch.where(below, 0.0, part.unsqueeze(-2)).cumsum(-1), (1, 0))  # (M, *batch, K, V): from a_x to a_y
        alive = sums[..., -1] + torch.exp(-time * level[..., -1:]) / slope[..., -1:]
        rest = torch.where(others, 1.0, alive.unsqueeze(-2)).prod(-1) * time
        passing += (rest.unsqueeze(-2) @ sums).squeeze(-2).sum(0)
        hitting += (rest * first * torch.exp(-time * rise)).sum(0)
    return STEP * (target * passing.gather(-1, rank)).scatter_add(-1, values, hitting)
