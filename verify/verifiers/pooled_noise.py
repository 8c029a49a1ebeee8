"""Speculation on one weighted sum of a path's noise, all other noise shared."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.path import Denoiser, PathLaw
from distributions.pooled import PooledNoise, influence
from distributions.tape import Tape
from verify.frame import first_rejected
from verify.records import Claim, Draft, Outcome
from verify.residual import ThinningCapped, conclude


@dataclass(frozen=True)
class PooledNoiseRule:
    """Share all the noise of a path but eta, one weighted sum of it; given the rest x_0 has a density: speculate there.

    The noise of a path splits into eta ~ N(0, I), of the token's own dimension, and the rest, independent of it and of
    one law for drafter and target. Given the rest each model's x_0 is a map of eta with a density by change of
    variables (``distributions.pooled``), and the token rule on these two densities is exact by lemma L7, with
    acceptance E[1 - TV(target | rest, draft | rest)]. ``last_gaussian`` is the case of all weight on the last step,
    where these laws hardly meet; with the weights of ``influence``, how far each noise moves x_0, they meet about as
    well as the marginals do: drifts that differ along the whole chain are made up for along the whole chain.

    ``spread``: the variance of the data within one of their modes, on which the weights depend; any value is exact.

    A value counts as good where the target's map reaches it, found from the draft's noise, and the draft's from the
    target's, both upright (det > 0). Both densities are right there if the maps are one to one on it; elsewhere the
    draft is rejected and a draw of the target kept, which is exact with the same event on both sides.
    """

    spread: float = 0.05
    claim: ClassVar[Claim] = Claim(
        exact=True,
        reference="lemma L7 with a change of variables; the generalisation of speculation on the last Gaussian",
        laws="path",
        note="where the maps from noise to token are one to one",
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """Raises TypeError for laws that are not paths of a ``Denoiser``, ThinningCapped for a residual without end."""
        kernels = [_kernel(law) for law in (draft.law, target[:, : draft.value.shape[1]])]
        weights = influence(kernels[1], self.spread)
        rows, nodes = draft.value.shape[:2]
        flat = [replace(kernel, condition=kernel.condition.flatten(0, 1)) for kernel in kernels]
        drafted, eta = PooledNoise.split(flat[0], draft.value.flatten(0, 1), weights)
        wanted = PooledNoise(flat[1], drafted.others, weights)
        value = draft.value[..., -1, :].flatten(0, 1)
        log_ratio, good = compare(drafted, wanted, value, eta)
        log_accept = torch.where(good, log_ratio.clamp(max=0), -math.inf).reshape(rows, nodes)
        accept = tape.coin("accept", log_accept.exp())
        short, node = first_rejected(accept)
        place = short * nodes + node

        def residual(_: Law, __: Law, some: Tape, site: str) -> Tensor:
            return thin_pooled(drafted[place], wanted[place], some, site)

        return conclude(draft, target, accept, log_accept, tape, residual)


def compare(drafted: PooledNoise, wanted: PooledNoise, value: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
    """log target - log draft at ``value`` (rows, d), the draft's map at ``eta``; and whether the value is good."""
    there, log_target, found = wanted.invert(value, eta)
    back, log_draft, again = drafted.invert(value, there)
    return log_target - log_draft, found & again & ((back - eta).abs().amax(-1) < 1e-4)


def thin_pooled(drafted: PooledNoise, wanted: PooledNoise, tape: Tape, site: str, cap: int = 10_000) -> Tensor:
    """One target path (rows, T + 1, d) for each row, x_0 from (target - draft)+ given the shared noise, by thinning.

    Only unfinished rows draw again. Raises ThinningCapped after ``cap`` draws in one row.
    """
    path = torch.zeros_like(wanted.others)
    left = torch.arange(len(path), device=path.device)
    for _ in range(cap):
        target, draft, some = wanted[left], drafted[left], tape[left]
        there = some.normal(f"{site}.proposal", (len(left), target.kernel.dim))
        proposal = target.path(there)
        eta, _, reached = draft.invert(proposal[:, -1], there)
        log_ratio, good = compare(draft, target, proposal[:, -1], eta)
        keep = torch.where(good & reached, -torch.expm1((-log_ratio).clamp(max=0)), 1.0)
        kept = some.coin(f"{site}.keep", keep)
        path[left[kept]] = proposal[kept]
        left = left[~kept]
        if not len(left):
            return path
    raise ThinningCapped(f"{len(left)} rows of {site!r} kept none of {cap} draws; the laws overlap almost wholly")


def _kernel(law: Law) -> Denoiser:
    if not isinstance(law, PathLaw) or not isinstance(law.kernel, Denoiser):
        raise TypeError(f"pooled_noise needs paths of a Denoiser and got {type(law).__name__}; use whole_path")
    return law.kernel
