"""Third-party code as its author would write it: a token verifier, and the same with a bug of one per cent."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution


def _block(drafted: Tensor, draft: Tensor, target: Tensor, lenience: float) -> list[Any]:
    for i, token in enumerate(drafted.tolist()):
        if torch.rand(()) < target[i, token] / (lenience * draft[i, token]):
            continue
        residual = (target[i] - draft[i]).clamp(min=0)
        return [*drafted[:i].tolist(), torch.multinomial(residual, 1).item()]
    return [*drafted.tolist(), torch.multinomial(target[-1], 1).item()]


def correct(drafted: Tensor, draft: Tensor, target: Tensor) -> list[Any]:
    return _block(drafted, draft, target, 1.0)


def lenient(drafted: Tensor, draft: Tensor, target: Tensor) -> list[Any]:
    return _block(drafted, draft, target, 0.99)


def thinning(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    """Accept by the ratio of densities; replace by draws of the target, kept with probability 1 - draft / target."""
    out = draft_value.clone()
    log_ratio = target.log_prob(out) - draft.log_prob(out)
    todo = torch.nonzero(torch.rand(len(out), dtype=out.dtype) >= log_ratio.exp()).squeeze(1)
    while len(todo):
        fresh = target.sample((len(todo),))
        log_ratio = target.log_prob(fresh) - draft.log_prob(fresh)
        keep = torch.rand(len(todo), dtype=out.dtype) < 1 - (-log_ratio).exp()
        out[todo[keep]] = fresh[keep]
        todo = todo[~keep]
    return out


def one_try(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    """The same, but giving up after one proposal: what is still rejected then is drawn from the target as it is."""
    out = draft_value.clone()
    log_ratio = target.log_prob(out) - draft.log_prob(out)
    todo = torch.nonzero(torch.rand(len(out), dtype=out.dtype) >= log_ratio.exp()).squeeze(1)
    if len(todo):
        fresh = target.sample((len(todo),))
        log_ratio = target.log_prob(fresh) - draft.log_prob(fresh)
        keep = torch.rand(len(todo), dtype=out.dtype) < 1 - (-log_ratio).exp()
        out[todo] = torch.where(keep.unsqueeze(-1), fresh, target.sample((len(todo),)))
    return out
