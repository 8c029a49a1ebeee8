"""Alignment whose target draws a noise of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.verifiers.rejection import Rejection


@dataclass(frozen=True)
class FreshNoiseAlignment:
    """Rejection given noise. Draft and target are each mean + sqrt(a) L w + sqrt(1 - a) L n with standard normal w and
    n, a the ``share``: given w both are Gaussian with the rest of the variance, and an exact coupling of the two for
    every w is exact (lemma L7). Here the target draws its w anew (with ``shared`` it does not): exact still, since its
    own w has the right law, but the means are now apart by the difference of two noises, and next to nothing is kept.

    The drafter's w is drawn given its draft, N(sqrt(a) L^-1 (x - mean), (1 - a) I), as if it had been kept.
    """

    share: float = 0.9
    shared: bool = False
    claim: ClassVar[Claim] = Claim(
        exact=True,
        laws="gaussian",
        reference="trajectory alignment of 2411.11925, without sharing its noise",
        note=(
            "draft and target noise that are no longer the same look like a broken coupling: acceptance collapses, the "
            "law does not"
        ),
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1).

        Raises TypeError for laws that are not Gaussian, and ValueError where the draft is not a chain.
        """
        known, rest = math.sqrt(self.share), math.sqrt(1 - self.share)
        noise = known * _white(draft.law, draft.value)
        noise = noise + rest * tape.normal("noise.draft", noise.shape)
        own = noise if self.shared else tape.normal("noise.target", noise.shape)
        prior = _given(draft.law, known * noise, torch.full(noise.shape[1:2], rest))
        # The bonus has no draft to share its noise with, and keeps all of its variance.
        part = torch.nn.functional.pad(torch.full(noise.shape[1:2], rest), (0, 1), value=1.0)
        law = _given(target, torch.nn.functional.pad(known * own, (0, 0, 0, 1)), part)
        return Rejection().verify(Draft(draft.value, prior, draft.parent), law, tape)


def _white(law: Law, value: Tensor) -> Tensor:
    """L^-1 (value - mean)."""
    if isinstance(law, Gaussian):
        return (value - law.mean) / law.scale
    if isinstance(law, FullGaussian):
        centred = (value - law.mean).unsqueeze(-1)
        white: Tensor = torch.linalg.solve_triangular(law.scale_tril, centred, upper=False)
        return white.squeeze(-1)
    raise TypeError(f"alignment needs Gaussian laws and got a {type(law).__name__}")


def _given(law: Law, noise: Tensor, part: Tensor) -> Law:
    """The law moved by L ``noise`` (rows, N, d), with deviations multiplied by ``part`` (N,)."""
    if isinstance(law, Gaussian):
        return Gaussian(law.mean + law.scale * noise, law.scale * part.unsqueeze(-1))
    assert isinstance(law, FullGaussian)
    mean = law.mean + (law.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
    return FullGaussian(mean, law.scale_tril * part[:, None, None])
