"""Speculation on one weighted sum of a path's noise, all other noise shared."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.path import Denoiser, PathLaw
from distributions.pooled import APART, PooledNoise, influence, noises, off_derivative
from distributions.preimage import SAME
from distributions.tape import Tape
from verify.gaussian.frame import first_rejected
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

    It is exact whether or not the maps F are one to one. From a drafted eta the target's noise eta' with F'(eta') =
    F(eta) is searched, and from eta' the draft's again: where that comes back to eta, the pair is good. Good pairs
    match the two noises one to one, and the match has the Jacobian det F / det F', so that the rule is speculative
    sampling of the noise under a change of variables. A noise without a partner is rejected as a draft, and kept as a
    draw of the target. What is exact is the token; the path of a kept draft is the drafter's own.
    """

    spread: float = 0.05
    claim: ClassVar[Claim] = Claim(
        exact=True,
        reference="lemma L7 with a change of variables; the generalisation of speculation on the last Gaussian",
        laws="path",
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """Raises TypeError for laws that are not paths of a ``Denoiser``, ValueError for heads of less than double
        precision, ThinningCapped for a residual without end.
        """
        kernels = [_kernel(law) for law in (draft.law, target[:, : draft.value.shape[1]])]
        weights = influence(kernels[1], self.spread)
        rows, nodes = draft.value.shape[:2]
        flat = [replace(kernel, condition=kernel.condition.flatten(0, 1)) for kernel in kernels]
        drafted, eta = PooledNoise.split(flat[0], draft.value.flatten(0, 1), weights)
        wanted = PooledNoise(flat[1], drafted.others, weights)
        _check_precision(flat, draft.value.flatten(0, 1))
        value = draft.value[..., -1, :].flatten(0, 1)
        log_ratio, good = compare(drafted, wanted, value, eta)
        log_accept = torch.where(good, log_ratio.clamp(max=0), -math.inf).reshape(rows, nodes)
        accept = tape.coin("accept", log_accept.exp())
        short, node = first_rejected(accept)
        place = short * nodes + node

        def residual(_: Law, __: Law, some: Tape, site: str) -> Tensor:
            return thin_pooled(drafted[place], wanted[place], some, site)

        return conclude(draft, target, accept, log_accept, tape, residual)


def compare(near: PooledNoise, far: PooledNoise, value: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
    """log far - log near of ``value`` (rows, d), which ``near`` maps eta to; and whether the value is good.

    Good is what the far map reaches from eta, and the near one from there again. The question is the same from either
    side, so that a value is good as a draft exactly when it is good as a draw of the target: either search starts where
    the other chain's whole path leads, with the other map's Jacobian at the noise that is known.
    """
    _, own = near.slopes(eta)
    there, other, found = far.search(value, _guess(near, far, eta), own)
    back, _, again = near.search(value, _guess(far, near, there), other, last=False)
    log_near, log_far = near.log_density(eta, own), far.log_density(there, other)
    good = found & again & ((back - eta).abs().amax(-1) < SAME) & torch.isfinite(log_near) & torch.isfinite(log_far)
    return torch.where(good, log_far - log_near, -math.inf), good


def _guess(near: PooledNoise, far: PooledNoise, eta: Tensor) -> Tensor:
    """The sum of the noise with which the far chain would walk the near one's whole path."""
    return torch.einsum("k,rkd->rd", far.weights, noises(far.kernel, near.path(eta)))


def thin_pooled(drafted: PooledNoise, wanted: PooledNoise, tape: Tape, site: str, cap: int = 100_000) -> Tensor:
    """One target path (rows, T + 1, d) for each row, x_0 from (target - draft)+ given the shared noise, by thinning.

    Only unfinished rows draw again, and the fewer are left the more draws each makes at once, of which the first that
    is kept counts: the law is that of one by one. Raises ThinningCapped after ``cap`` draws in one row.
    """
    path, size, tried = torch.zeros_like(wanted.others), len(wanted.others), 0
    left = torch.arange(size, device=path.device)
    while len(left):
        if tried >= cap:
            raise ThinningCapped(f"{len(left)} rows of {site!r} kept none of {tried} draws; the laws are all but one")
        each = max(1, size // len(left))
        rows = left.repeat_interleave(each)
        target, draft, some = wanted[rows], drafted[rows], tape[rows]
        eta = some.normal(f"{site}.proposal", (len(rows), target.kernel.dim))
        proposal = target.path(eta)
        log_ratio, good = compare(target, draft, proposal[:, -1], eta)
        keep = torch.where(good, -torch.expm1(log_ratio.clamp(max=0)), 1.0)
        kept = some.coin(f"{site}.keep", keep).reshape(-1, each)
        first = kept.to(torch.int8).argmax(1)
        done = kept.any(1)
        path[left[done]] = proposal.reshape(-1, each, *path.shape[1:])[done, first[done]]
        left, tried = left[~done], tried + each
    return path


def _check_precision(kernels: list[Denoiser], path: Tensor, rows: int = 8) -> None:
    """Raises ValueError for a head of less than double precision: it jumps, so that hardly a noise would be found."""
    for kernel, name in zip(kernels, ("drafter", "target"), strict=True):
        if off_derivative(kernel[:rows], path[:rows]) > APART:
            raise ValueError(
                f"the {name}'s head answers in jumps, as in single precision, and pooled_noise inverts it; give it "
                "weights of float64, as in pretrained(name, dtype=torch.float64)"
            )


def _kernel(law: Law) -> Denoiser:
    if not isinstance(law, PathLaw) or not isinstance(law.kernel, Denoiser):
        raise TypeError(f"pooled_noise needs paths of a Denoiser and got {type(law).__name__}; use whole_path")
    return law.kernel
