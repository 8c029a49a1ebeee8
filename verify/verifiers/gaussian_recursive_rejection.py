"""Recursive rejection of Gaussian siblings: what the target still lacks has a closed form after every refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.couplings import gamma_quantile
from verify.gaussian.frame import Along, sibling_frame
from verify.gaussian.normals import excess_mass, shared_mass
from verify.records import Claim, Draft, Outcome
from verify.siblings import keep_first, siblings


@dataclass(frozen=True)
class GaussianRecursiveRejection:
    """Keep sibling k with probability min(1, (r - lambda_{k-1})+ / G_k), r = p / q; where all are refused, draw (p -
    lambda_K q)+ (D-GRS, 2609.17691; lemma A15). For Gaussian drafts q and targets p of one covariance.

    This is ``recursive_rejection`` with p_k = (p - lambda_{k-1} q)+ / G_k, lambda_0 = 0, G_1 = 1: rejection against q
    leaves (p_k - q)+, which is (p - lambda_k q)+ / G_k with lambda_k = lambda_{k-1} + G_k and the mass G_{k+1} / G_k,
    where G_{k+1} is that of (p - lambda_k q)+ = lambda_k ``excess_mass`` at the weight 1 / lambda_k. All K are refused
    with the product of these masses, so that the acceptance is 1 - G_{K+1}. As there, the siblings must be visited in
    the order they were drawn in.

    Raises TypeError for other laws (recursive_rejection serves a vocabulary) and for unequal covariances, ValueError
    for a draft that is not all siblings of one law.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="D-GRS, 2609.17691", laws="gaussian")

    def parent(self, nodes: int) -> Tensor:
        """All nodes are guesses at the next token."""
        return siblings(nodes)

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """A kept sibling and a bonus, or one token. ``target`` has batch (rows, N + 1)."""
        frame = sibling_frame("gaussian_recursive_rejection", draft, target)
        taken, mass = levels(frame.distance[:, 0], draft.value.shape[1])
        ratio = frame.log_ratio(frame.place(draft.value))
        # log (r - lambda)+ / G; where nothing is left to be kept, the sibling is never reached.
        over = -torch.expm1((taken[:, :-1].log() - ratio).clamp(max=0))
        log_accept = (ratio + over.log() - mass[:, :-1].log()).clamp(max=0)
        log_accept = torch.where((over > 0) & (mass[:, :-1] > 0), log_accept, -torch.inf)
        rest = Along(frame[:, 0], gamma_quantile, (-taken[:, -1].log(),))
        return keep_first(draft, target, tape.coin("accept", log_accept.exp()), log_accept, rest, tape)

    def acceptance(self, distance: Tensor, count: int) -> Tensor:
        """The probability that one of ``count`` siblings is kept whose target is ``distance`` away.

        Formula: 1 - G_{K+1}, which is the integral of min(lambda_K q, p).
        """
        return shared_mass(distance, levels(distance, count)[0][..., -1].log())


def levels(distance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """lambda_0, ..., lambda_K and G_1, ..., G_{K+1} (*batch, count + 1): what is taken of q, and what p still lacks."""
    taken, mass = [torch.zeros_like(distance)], [torch.ones_like(distance)]
    for _ in range(count):
        taken.append(taken[-1] + mass[-1])
        mass.append(taken[-1] * excess_mass(distance, -taken[-1].log()))
    return torch.stack(taken, -1), torch.stack(mass, -1)
