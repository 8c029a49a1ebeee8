"""The judge of continuous samplers: exact rules pass, planted defects are found, and the figures it states hold.

The subjects below are written as a stranger would write them: global generators, no tape.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor
from torch.distributions import Distribution

from verify.errors import SubjectError
from verify.records import Verdict
from verify.spaces.gaussian import BUDGETS, DELTA, ENOUGH, Budget, _plan, judge_gaussian
from verify.spaces.gaussian_pairs import pairs
from verify.spaces.gaussian_rows import call_sizes

Laws = tuple[Distribution, Distribution]
BRIEF = Budget(16_384, 4.0)
"""Large enough for defects of total variation 0.05 and more; the smaller ones are judged at the quick budget."""


def ratio(x: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    return (target.log_prob(x) - draft.log_prob(x)).exp()


def thinned(x: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    """Draws from (p - q)+ by thinning, one for each row of x."""
    out, todo = torch.empty_like(x), torch.arange(len(x))
    while len(todo):
        z = target.sample((len(todo),))
        keep = torch.rand(len(todo), dtype=x.dtype) < 1 - 1 / ratio(z, draft, target)
        out[todo[keep]] = z[keep]
        todo = todo[~keep]
    return out


def axis(draft: Distribution, target: Distribution) -> Tensor:
    shift = target.mean - draft.mean
    return shift / shift.norm() if bool(shift.any()) else torch.zeros_like(shift)


def reflected(x: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    centred, e = x - draft.mean, axis(draft, target)
    return target.mean + centred - 2 * (centred @ e).unsqueeze(-1) * e


def speculative(
    accept: Callable[..., Tensor] = ratio,
    replacement: Callable[..., Tensor] = thinned,
    coins: Callable[[Tensor], Tensor] = lambda x: torch.rand(len(x), dtype=x.dtype),
) -> Callable[[Tensor, Distribution, Distribution], Tensor]:
    """Accept with a probability, replace otherwise; the exact rule by default, a defect where an argument is wrong."""

    def fn(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
        kept = coins(draft_value) < accept(draft_value, draft, target)
        out = draft_value.clone()
        out[~kept] = replacement(draft_value[~kept], draft, target)
        return out

    return fn


def direct(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    return target.sample((len(draft_value),))


def residual_target(x: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    return target.sample((len(x),))


def residual_from_draft(x: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    """Proposals of the thinning come from the draft's law: nothing where that law has next to no mass."""
    out, todo = torch.zeros_like(x), torch.arange(len(x))
    for _ in range(40):
        z = draft.sample((len(todo),))
        keep = torch.rand(len(todo), dtype=x.dtype) < 1 - 1 / ratio(z, draft, target)
        out[todo[keep]] = z[keep]
        todo = todo[~keep]
    out[todo] = target.sample((len(todo),))
    return out


def capped(tries: int) -> Callable[..., Tensor]:
    def replacement(x: Tensor, draft: Distribution, target: Distribution) -> Tensor:
        out, todo = torch.zeros_like(x), torch.arange(len(x))
        for _ in range(tries):
            z = target.sample((len(todo),))
            keep = torch.rand(len(todo), dtype=x.dtype) < 1 - 1 / ratio(z, draft, target)
            out[todo[keep]] = z[keep]
            todo = todo[~keep]
        return out

    return replacement


def wrong_plane(x: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    """Reflects about the draft's mean instead of the plane half way."""
    centred, e = x - draft.mean, axis(draft, target)
    return draft.mean + centred - 2 * (centred @ e).unsqueeze(-1) * e


def noisy_across(x: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    """The reflection, with 1.3 times the deviation in every direction orthogonal to the mean difference."""
    out, e = reflected(x, draft, target) - target.mean, axis(draft, target)
    along = (out @ e).unsqueeze(-1) * e
    return target.mean + along + 1.3 * (out - along)


def tempered(temperature: float) -> Callable[..., Tensor]:
    return lambda x, draft, target: ratio(x, draft, target) ** (1 / temperature)


def unnormalised(x: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    """The ratio of the exponentials, without the deviations that normalise them."""
    scores = [((x - law.mean) / law.stddev).square().sum(-1) for law in (draft, target)]
    return (0.5 * (scores[0] - scores[1])).exp()


def one_coin(x: Tensor) -> Tensor:
    return torch.rand((), dtype=x.dtype).expand(len(x))


def first_row_twice(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    out = speculative()(draft_value, draft, target)
    if len(out) > 1:
        out[1] = out[0]
    return out


def correlated(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    """Every coordinate has the target's law, and the last two share 0.3 of their variance."""
    noise = torch.randn_like(draft_value)
    noise[:, -1] = 0.3 * noise[:, -2] + (1 - 0.3**2) ** 0.5 * noise[:, -1]
    return target.mean + target.stddev * noise


def first_row_accepted(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    out = speculative()(draft_value, draft, target)
    out[0] = draft_value[0]
    return out


def nan_at_times(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    out = speculative()(draft_value, draft, target)
    out[torch.rand(len(out)) < 2e-4] = float("nan")
    return out


def half_as_often(x: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    return 0.5 * ratio(x, draft, target).clamp(max=1.0)


def under_accepting(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    """Accepts half of what it may; the rest follows (p - min(p, q) / 2), drawn by thinning: exact, only slow."""
    out, todo = draft_value.clone(), torch.arange(len(draft_value))
    todo = todo[torch.rand(len(todo), dtype=out.dtype) >= half_as_often(draft_value, draft, target)]
    while len(todo):
        z = target.sample((len(todo),))
        keep = torch.rand(len(todo), dtype=z.dtype) < 1 - 0.5 * (1 / ratio(z, draft, target)).clamp(max=1.0)
        out[todo[keep]] = z[keep]
        todo = todo[~keep]
    return out


reflection = speculative(replacement=reflected)


def numpy_rejection(draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
    """The same rule on another generator, with the standard library for the coins."""

    def coins(x: Tensor) -> Tensor:
        return torch.tensor([random.random() for _ in range(len(x))], dtype=x.dtype)

    def replacement(x: Tensor, draft: Distribution, target: Distribution) -> Tensor:
        out, todo = torch.empty_like(x), np.arange(len(x))
        while len(todo):
            z = target.mean + target.stddev * torch.as_tensor(np.random.normal(size=(len(todo), x.shape[1])))  # noqa: NPY002
            keep = (torch.as_tensor(np.random.rand(len(todo))) < 1 - 1 / ratio(z, draft, target)).numpy()  # noqa: NPY002
            out[todo[keep]] = z[torch.as_tensor(keep)]
            todo = todo[~keep]
        return out

    return speculative(replacement=replacement, coins=coins)(draft_value, draft, target)
