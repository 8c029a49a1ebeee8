"""Couplings of two laws, noise in and values out, each with the closed form of its acceptance.

A coupling turns a draw of the draft into a draw of the target, and keeps it unchanged as often as it can. The functions
here compute and never draw; ``couple`` and ``couple_gaussian`` feed them from a tape.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import erfc, log_ndtr

from distributions.categorical import Categorical
from distributions.gaussian import Gaussian
from distributions.tape import Tape, inverse_cdf
from verify.residual import log_ratio, residual_law


def maximal(
    value: Tensor, target: Categorical, draft: Categorical, uniform: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:
    """The maximal coupling on a finite vocabulary: (coupled value, whether it is the drafted one).

    ``value`` ~ draft is kept iff ``uniform`` < target / draft, and otherwise replaced by the inverse CDF of (target -
    draft)+ at ``second``. Kept with probability ``target.overlap(draft)``, the most any coupling reaches (Thorisson,
    Coupling, Stationarity, and Regeneration, 2000, section 1.4). All arguments have one batch shape.
    """
    kept = uniform < log_ratio(value, target, draft).exp()
    return torch.where(kept, value, inverse_cdf(residual_law(target, draft).probs, second)), kept


def couple(value: Tensor, target: Categorical, draft: Categorical, tape: Tape, site: str = "couple") -> Tensor:
    """``maximal`` with its noise from a tape, in coins and categoricals, so that it can be enumerated."""
    kept = tape.coin(f"{site}.keep", log_ratio(value, target, draft).exp().clamp(max=1))
    return torch.where(kept, value, residual_law(target, draft).sample(tape, f"{site}.residual"))


def sibling_cap(target: Tensor, draft: Tensor, count: int) -> Tensor:
    """The most that a lossless rule may accept of ``count`` independent drafts of one token, batch-wise.

    Formula: min over sets H of 1 + target(H) - draft(H)**count; the best H collects tokens by increasing target / draft
    (lemma A8). For one draft it is the overlap, 1 - TV. ``target`` and ``draft`` are probabilities (*batch, V).
    """
    if count == 1:
        return torch.minimum(target, draft).sum(-1)
    order = torch.where(draft > 0, target / draft, math.inf).argsort(-1)
    heads = 1 + target.gather(-1, order).cumsum(-1) - draft.gather(-1, order).cumsum(-1) ** count
    return heads.amin(-1).clamp(max=1)


def subset_cap(target: Tensor, drafts: Tensor, mass: Tensor) -> Tensor:
    """The most that a lossless rule may accept of siblings drawn by any joint law.

    Formula: min over all sets H of tokens of 1 + target(H) - P(every sibling in H) (lemma A8). ``target`` (rows, V)
    probabilities; ``drafts`` (rows, M, K) the blocks of siblings that are possible, with their ``mass`` (rows, M).
    Raises ValueError beyond 12 tokens, where the sets are too many.
    """
    vocab = target.shape[-1]
    if vocab > 12:
        raise ValueError(f"{vocab} tokens have too many subsets; use sibling_cap, for independent siblings")
    sets = (torch.arange(2**vocab).unsqueeze(-1) >> torch.arange(vocab) & 1).bool()
    inside = sets.T[drafts].all(-2).double()  # (rows, M, 2^V)
    heads = 1 + target @ sets.double().T - torch.einsum("rms,rm->rs", inside, mass)
    return heads.amin(-1).clamp(max=1)


def reflection(noise: Tensor, shift: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The reflection maximal coupling of N(0, I) and N(shift, I): (the target's noise, whether the value is kept).

    ``noise`` (*batch, d) is the draft's standard normal, ``shift`` (*batch, d) the target's mean less the draft's, both
    in whitened coordinates; the target's value is its mean plus the returned noise. With delta = |shift| and s =
    <noise, shift> / delta it is kept iff log(1 - uniform) <= delta (s - delta / 2), and otherwise reflected across
    the plane half-way (lemma A13: Bou-Rabee, Eberle and Zimmer 1805.00452; De Bortoli et al. 2501.05370). Kept with
    probability ``reflection_overlap``. ``uniform`` in [0, 1): 0 and equal means are safe, since the logarithm
    is at most 0.
    """
    distance = torch.linalg.vector_norm(shift, dim=-1, keepdim=True)
    axis = torch.where(distance > 0, shift / distance.clamp(min=torch.finfo(shift.dtype).tiny), 0.0)
    along = (noise * axis).sum(-1, keepdim=True)
    kept = torch.log1p(-uniform) <= (distance * (along - distance / 2)).squeeze(-1)
    return torch.where(kept.unsqueeze(-1), noise - shift, noise - 2 * along * axis), kept


def reflection_overlap(distance: Tensor) -> Tensor:
    """1 - TV of two unit normals ``distance`` apart: 2 Phi(-distance / 2)."""
    overlap: Tensor = erfc(distance / math.sqrt(8))
    return overlap


def couple_gaussian(
    value: Tensor, target: Gaussian, draft: Gaussian, tape: Tape, site: str = "couple"
) -> tuple[Tensor, Tensor]:
    """``reflection`` for two laws of one covariance, the noise from a tape: (value, kept); a kept value is untouched.

    Raises ValueError for unequal scales, where reflection is not a coupling.
    """
    if not torch.equal(target.scale, draft.scale):
        raise ValueError("reflection couples Gaussians of one covariance; give equal scales, or use rejection")
    uniform = tape.uniform(f"{site}.keep", value.shape[:-1])
    noise = (value - draft.mean) / draft.scale
    moved, kept = reflection(noise, (target.mean - draft.mean) / draft.scale, uniform)
    return torch.where(kept.unsqueeze(-1), value, target.mean + target.scale * moved), kept


def gamma_log_tail(place: Tensor, distance: Tensor, log_weight: Tensor) -> Tensor:
    """log of the mass that (weight phi(s - distance) - phi(s))+ has beyond ``place``, itself beyond the crossing.

    Formula: weight Phi(distance - s) - Phi(-s), both tails in logarithms so that neither underflows.
    """
    heavy: Tensor = log_weight + log_ndtr(distance - place)
    return heavy + torch.log(-torch.expm1((log_ndtr(-place) - heavy).clamp(max=0)))


def gamma_crossing(distance: Tensor, log_weight: Tensor) -> Tensor:
    """From where on weight phi(s - distance) exceeds phi(s): distance / 2 - log weight / distance."""
    flat = torch.where(log_weight > 0, -math.inf, math.inf)
    return torch.where(distance > 0, distance / 2 - log_weight / torch.where(distance > 0, distance, 1.0), flat)


def gamma_quantile(uniform: Tensor, distance: Tensor, log_weight: Tensor) -> Tensor:
    """The inverse CDF of the law proportional to (weight phi(s - distance) - phi(s))+ at ``uniform`` in [0, 1).

    This is the residual of two Gaussians of one covariance along the line that joins their means (lemma A14:
    2606.13426); weight 1 follows a rejection, another weight a block. The tail is inverted by bisection on its
    logarithm, to rounding. Raises ValueError where the residual has no mass: distance 0 and weight at most 1.
    """
    crossing = gamma_crossing(distance, log_weight)
    if bool((crossing == math.inf).any()):
        raise ValueError("the residual has no mass where the means are equal and the weight is at most 1; accept there")
    low = crossing.clamp(min=-40.0)  # no double of phi's tail lies below -40
    # Beyond a crossing far to the right the tail falls like exp(-s^2 / 2), so 2**-53 of it lies within 10 of it.
    high = torch.maximum(low, distance) + 10.0
    level = gamma_log_tail(low, distance, log_weight) + torch.log1p(-uniform)
    for _ in range(60):
        middle = (low + high) / 2
        beyond = gamma_log_tail(middle, distance, log_weight) > level
        low, high = torch.where(beyond, middle, low), torch.where(beyond, high, middle)
    return (low + high) / 2


def gamma_coupling(noise: Tensor, shift: Tensor, uniform: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """As ``reflection``, with the same acceptance; a rejected draw moves along the shift to an independent residual.

    The component across the shift has one law under both Gaussians and is reused; the one along it becomes the
    ``gamma_quantile`` of ``second``. So the rejected value carries no trace of where along the shift the draft lay.
    """
    reflected, kept = reflection(noise, shift, uniform)
    distance = torch.linalg.vector_norm(shift, dim=-1)
    safe = torch.where(kept, 1.0, distance)  # a kept row needs no residual, and may have none
    axis = shift / safe.unsqueeze(-1)
    along = (noise * axis).sum(-1, keepdim=True)
    place = gamma_quantile(second, safe, torch.zeros_like(safe))
    residual = noise + ((place - safe).unsqueeze(-1) - along) * axis
    return torch.where(kept.unsqueeze(-1), reflected, residual), kept
