"""What floating-point rounding can explain of a bias: the error budget of an identity check, and what lies beyond."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from verify.foreign.torch_draws import coarse_uniform

HALF = (torch.bfloat16, torch.float16)


def unit(dtype: torch.dtype) -> float:
    """The unit roundoff: half the gap between 1 and the next number; 2**-8 for bfloat16, 2**-24 for float32."""
    return float(torch.finfo(dtype).eps) / 2


def chance(ratio: Tensor, dtype: torch.dtype = torch.float32, strict: bool = True) -> Tensor:
    """P(u < ratio), or P(u <= ratio) if not ``strict``, for the uniform u that torch draws in ``dtype``; in float64.

    float32 and float64 uniforms are multiples of 2**-24 and 2**-53. Narrower ones take the few values, with the
    probabilities, of the installed release (``verify.foreign.grid``): in bfloat16 a recent torch returns 0 with
    probability 2**-9, so that ``u <= 0`` is true that often. A NaN ratio is never above u.
    """
    if dtype in HALF:
        values, weights = coarse_uniform(dtype)
        rising = np.argsort(values)
        below = torch.from_numpy(np.concatenate([[0.0], np.cumsum(weights[rising])]))
        edges = torch.from_numpy(np.ascontiguousarray(values[rising]))
        found = below[torch.searchsorted(edges, ratio.double().contiguous(), right=not strict)]
    else:
        steps = 2.0 ** (24 if dtype is torch.float32 else 53)
        scaled = ratio.double() * steps
        found = (scaled.ceil() if strict else scaled.floor() + 1) / steps
    return torch.where(ratio.isnan(), torch.zeros_like(found), found.clamp(0, 1))


@dataclass(frozen=True, eq=False)
class Budget:
    """Bounds (contexts,) on the total variation that rounding puts between a correct rule's output and its target.

    ``ratio``, ``residual``: from computing p/q and (p - q)+ in the arithmetic of the code, see ``relative`` and
    ``slack``. ``coin``: a uniform on a grid of spacing h moves each acceptance by less than h. ``normalisation``: for
    tables t (target) and s (draft) that sum to T and S. The standard rule on the tables as they are, a = min(1, t/s)
    and r = (t - s)+ / (T - M), M = sum min(t, s), outputs

        o = min(t, s) / S + (1 - M/S) (t - s)+ / (T - M),    TV(o, t/T) = M |T - S| / (S T) TV(m, r),

    m = min(t, s) / M: what o - t/T adds to the accepted part it takes from the replaced one. Granted is M |T - S| /
    (S T). ``storage``: how
    far the stored target may lie from the law before it was rounded, at most one unit roundoff; the check takes the
    stored table for the target, so this is for information and in no total.
    """

    ratio: Tensor
    residual: Tensor
    coin: Tensor
    normalisation: Tensor
    storage: Tensor

    @property
    def arithmetic(self) -> Tensor:
        """What computing, as against storing, explains."""
        return self.ratio + self.residual + self.coin

    @property
    def total(self) -> Tensor:
        return self.arithmetic + self.normalisation

    def row(self, context: int) -> dict[str, float]:
        """The parts in one context, by name."""
        return {item.name: float(getattr(self, item.name)[context]) for item in fields(self)}


def normalisation(draft: Tensor, target: Tensor) -> Tensor:
    """M |T - S| / (S T) for float64 tables (..., V) with sums S, T and M = sum min(t, s): see ``Budget``."""
    draft_sum, target_sum = draft.sum(-1), target.sum(-1)
    return torch.minimum(draft, target).sum(-1) * (target_sum - draft_sum).abs() / (draft_sum * target_sum)


def relative(draft: Tensor, target: Tensor, dtype: torch.dtype) -> Tensor:
    """By what share (..., V) an acceptance probability computed in ``dtype`` may miss p/q.

    With unit roundoff u, to first order: one u for the quotient; for tables normalised anew two divisions and two sums
    by halves, 2 (1 + log2 V) u; in the log domain u (|ln t| + |ln s| + |ln t - ln s| + 1). All of them are granted in
    float32 and float64. In a narrow type (bfloat16, float16) only the casts and the quotient are, 2 u: logarithms or
    sums of V terms in such a type are a defect and not rounding.
    """
    small = unit(dtype)
    if dtype in HALF:
        return torch.full_like(target, 2 * small)
    top, bottom = (table.float().log().clamp(min=-104.0) for table in (target, draft))  # float32 will do for a bound
    logs = top.abs() + bottom.abs() + (top - bottom).abs()
    return logs.double().add_(6 + 2 * math.log2(target.shape[-1])).mul_(small)


def slack(target: Tensor, excess: Tensor, dtype: torch.dtype) -> Tensor:
    """How far (..., V) a weight computed in ``dtype`` may miss the excess (p - q)+.

    A computed weight is positive, or ought to be, only where q is at most about p. There the difference of tables
    normalised anew misses by (1 + log2 V) u of each, and by u of itself: at most (8 + 2 log2 V) u p in all, which is
    granted in float32 and float64. In a narrow type the difference of the tables as they are is exact up to its own
    rounding and one division, 4 u (p - q)+.
    """
    small = unit(dtype)
    return 4 * small * excess if dtype in HALF else (8 + 2 * math.log2(target.shape[-1])) * small * target


def spacing(dtype: torch.dtype) -> float:
    """The grid of the uniform that a coin is tossed with: of float32 at least, a narrower one is a defect."""
    return 2.0**-53 if dtype is torch.float64 else 2.0**-24


def over_accepted(kept: Tensor, wanted: Tensor, loose: Tensor) -> Tensor:
    """Accepted mass above the target's, which no replacement takes away: sum (kept (1 - loose) - wanted)+, (C,)."""
    return torch.addcmul(kept, kept, loose, value=-1).sub_(wanted).clamp_(min=0).sum(-1)


def misfit(
    replaced: Tensor, rejection: Tensor, kept: Tensor, wanted: Tensor, blur: Tensor, dtype: torch.dtype
) -> Tensor:
    """``rejection`` times the distance of the law ``replaced`` from what acceptance leaves, beyond rounding: (C,).

    With e = (wanted - kept)+, D = sum e, and d(x) the rounding of e(x), that of ``kept`` (``blur``) included, a correct
    law lies between (e - d)+ / (D + sum d) and (e + d) / (D - sum d). Where D <= sum d nothing is left to replace, and
    the target itself is wanted.
    """
    excess = torch.sub(wanted, kept).clamp_(min=0)
    play = slack(wanted, excess, dtype).add_(blur)
    mass, room = excess.sum(-1, keepdim=True), play.sum(-1, keepdim=True)
    above = (excess + play).div_(room - mass).add_(replaced).clamp_(min=0).sum(-1)
    below = excess.sub_(play).clamp_(min=0).div_(mass + room).sub_(replaced).clamp_(min=0).sum(-1)
    left = (mass > room).squeeze(-1)
    fit = torch.where(left, rejection * torch.maximum(above, below), 0.0)
    if bool(left.all()):
        return fit
    other = rejection * (replaced - wanted).abs_().sum(-1) / 2 - 2 * room.squeeze(-1)
    return torch.where(left, fit, other.clamp(min=0))
