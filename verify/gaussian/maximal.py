"""Couplings of one step of two chains: a draft's own draw in, a draw of the target out, kept or moved where it can be.

A coupling is a function ``(value, target, draft, tape, site)``: ``value`` (*batch, d) was drawn from ``draft``; what
comes back has the law ``target``. Both laws have the batch of the value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from distributions.tape import Tape
from verify.gaussian.pair import Pair
from verify.residual import ThinningCapped, log_ratio, thin

Coupling = Callable[[Tensor, Law, Law, Tape, str], Tensor]
DRAWS = 1_000_000_000
"""Draws of one value after which a thinning gives up."""
BLOCK = 65_536
"""Draws that a thinning makes at once, about."""


def synchronous(value: Tensor, target: Law, draft: Law, tape: Tape, site: str) -> Tensor:
    """The same standardised noise under both laws: mean_p + L_p L_q^-1 (value - mean_q); nothing is drawn.

    The alignment of 2411.11925. Laws that are equal give back the value itself, bit for bit. Raises TypeError for laws
    that are not Gaussian.
    """
    pair = Pair.of(target, draft)
    same = (pair.one_covariance() & (pair.shift == 0).all(-1)).unsqueeze(-1)
    return torch.where(same, value, pair.point(target, pair.noise(value, draft)))


def maximal(value: Tensor, target: Law, draft: Law, tape: Tape, site: str) -> Tensor:
    """The coupling that keeps a value as often as any can, 1 - TV of the laws, and otherwise moves it (``moved``).

    Kept with probability min(1, p(x) / q(x)), and then untouched, bit for bit. For Gaussians of one covariance it is
    the reflection coupling (lemma A13).
    """
    if isinstance(target, Gaussian) and isinstance(draft, Gaussian) and torch.equal(target.scale, draft.scale):
        return _reflected(value, target, draft, tape, site)
    if not both_gaussian(target, draft):
        return independent(value, target, draft, tape, site)
    pair = Pair.of(target, draft)
    noise = pair.noise(value, draft)
    gain = pair.gain(pair.inside(noise), noise)
    where = torch.nonzero(~tape.coin(f"{site}.keep", gain.clamp(max=0).exp()), as_tuple=True)
    if not len(where[0]):
        return value
    image = _image(pair[where], noise[where], gain[where], tape[where[0]], site)
    return value.index_put(where, pair.point(target[where], image))


def independent(value: Tensor, target: Law, draft: Law, tape: Tape, site: str) -> Tensor:
    """As ``maximal``, with a residual that forgets the rejected value: thinning (lemma A18), for laws of any kind."""
    accept = tape.coin(f"{site}.keep", log_ratio(value, target, draft).clamp(max=0).exp())
    where = torch.nonzero(~accept, as_tuple=True)
    if not len(where[0]):
        return value
    return value.index_put(where, thin(target[where], draft[where], tape[where[0]], site))


def moved(value: Tensor, target: Law, draft: Law, tape: Tape, site: str) -> Tensor:
    """What the target has in place of a rejected ``value`` (M, d), of density (q - p)+: a draw of (p - q)+, near it if
    that can be.

    Gaussians of one covariance: the mirror image in the plane half-way between the means (lemma A13). Unequal ones:
    the affine image z = T(x) = mean_p + L_p H L_q^-1 (x - mean_q), H the mirror along L_q^-1 (mean_p - mean_q), which
    carries q to p. Then z has the density r0(z) = p(z) (1 - a(T^-1 z)), a = min(1, p / q), where r = (p - q)+ is
    wanted. So z is taken with probability min(1, r(z) / r0(z)); it contributes min(r, r0), and (r - r0)+ is missing,
    with as much mass as was refused, since r and r0 both have the mass TV. That is drawn by thinning p, with
    probability (r - r0)+ / p = ((1 - q / p)+ - (1 - a(T^-1 z)))+. A draw succeeds with the probability M that it is
    needed, so that there is one draw for each coin of ``maximal`` in the mean, unless M is 0. At equal covariances
    r = r0, as H exchanges the two laws: the reflection coupling.

    Laws of another kind: thinning alone. Raises ThinningCapped where thinning does not end.
    """
    if not both_gaussian(target, draft):
        return thin(target, draft, tape, site)
    pair = Pair.of(target, draft)
    noise = pair.noise(value, draft)
    return pair.point(target, _image(pair, noise, pair.gain(pair.inside(noise), noise), tape, site))


def _image(pair: Pair, noise: Tensor, gain: Tensor, tape: Tape, site: str) -> Tensor:
    """The target's noise of what replaces rejected points (M, d) that have the draft's ``noise``; see ``moved``."""
    image, sure = pair.mirror(noise), pair.one_covariance()
    if bool(sure.all()):
        return image
    lost = -torch.expm1(gain.clamp(max=0))
    sure |= lost == 0  # rejected by rounding only
    accept = tape.coin(f"{site}.image", torch.where(sure, 1.0, (pair.excess(image) / lost).clamp(max=1)))
    left = torch.nonzero(~accept).squeeze(1)
    return image.index_put((left,), _missing(pair[left], tape[left], site)) if len(left) else image


def _reflected(value: Tensor, target: Gaussian, draft: Gaussian, tape: Tape, site: str) -> Tensor:
    """``maximal`` for the common case, without a gather: a mirror image differs by a multiple of the means' difference.

    With e the unit vector along the whitened difference D, the image is mean_p + L (I - 2 e e^T) w = x + (1 - 2 <w, D>
    / |D|^2) (mean_p - mean_q), and log p / q = <w, D> - |D|^2 / 2.
    """
    apart = target.mean - draft.mean
    white = apart / draft.scale
    square = white.square().sum(-1)
    along = (white * ((value - draft.mean) / draft.scale)).sum(-1)
    accept = tape.coin(f"{site}.keep", (along - square / 2).clamp(max=0).exp())
    return value + torch.where(accept, 0.0, 1 - 2 * along / square).unsqueeze(-1) * apart


def both_gaussian(target: Law, draft: Law) -> TypeGuard[Gaussian | FullGaussian]:
    """Whether both laws are Gaussian."""
    return all(isinstance(law, (Gaussian, FullGaussian)) for law in (target, draft))


def _missing(pair: Pair, tape: Tape, site: str) -> Tensor:
    """The target's noise (M, d) of draws of (r - r0)+, in blocks that grow, since a rare event is a long wait."""
    count, dim = pair.shift.shape
    found = pair.shift.new_empty(count, dim)
    left, drawn, size = torch.arange(count, device=found.device), 0, max(1, min(16, BLOCK // count))
    while len(left):
        if drawn > DRAWS:
            raise ThinningCapped(
                f"{len(left)} of {count} rows of {site!r} kept none of {drawn} draws: the two covariances are almost "
                "equal; make them equal, which needs no draws"
            )
        some = tape[left]
        noise = some.normal(f"{site}.proposal", (len(left), size, dim))
        keep = some.coin(f"{site}.again", pair[left, None].missing(noise))
        done = keep.any(-1)
        first = keep[done].to(torch.int8).argmax(-1)
        found[left[done]] = noise[done, first]
        left, drawn = left[~done], drawn + size
        size = max(1, min(4 * size, BLOCK // max(1, len(left))))
    return found
