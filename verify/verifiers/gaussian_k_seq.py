"""K-SEQ on Gaussians: every sibling is kept with one and the same reduced probability, found in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.couplings import gamma_quantile
from verify.gaussian.frame import Along, sibling_frame
from verify.gaussian.normals import shared_mass
from verify.records import Claim, Draft, Outcome
from verify.siblings import keep_first, siblings


@dataclass(frozen=True)
class GaussianKSeq:
    """Keep each of K independent siblings with probability min(1, p / (rho q)), p = target, q = draft; where all are
    refused, draw (p - rho q)+ (SpecTr, Sun et al. 2310.15141; lemmas A7 and A15). For Gaussians of one covariance.

    As for ``k_seq``, rho in [1, K] is the root of 1 - (1 - beta)^K = rho beta: then the kept mass is min(rho q, p), and
    what is missing, (p - rho q)+, has the mass (1 - beta)^K with which all siblings are refused. Here p > rho q beyond
    t = delta / 2 + log rho / delta, so that beta, the integral of min(q, p / rho), is Phi(t - delta) / rho + Phi(-t).

    Raises TypeError for other laws (k_seq serves a vocabulary) and for unequal covariances, ValueError for a draft that
    is not all siblings of one law.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="SpecTr, Sun et al. 2310.15141", laws="gaussian")

    def parent(self, nodes: int) -> Tensor:
        """All nodes are guesses at the next token."""
        return siblings(nodes)

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """A kept sibling and a bonus, or one token. ``target`` has batch (rows, N + 1)."""
        frame = sibling_frame("gaussian_k_seq", draft, target)
        log_rho = division(frame.distance, draft.value.shape[1]).log()
        log_accept = (frame.log_ratio(frame.place(draft.value)) - log_rho).clamp(max=0)
        rest = Along(frame[:, 0], gamma_quantile, (-log_rho[:, 0],))
        return keep_first(draft, target, tape.coin("accept", log_accept.exp()), log_accept, rest, tape)

    def acceptance(self, distance: Tensor, count: int) -> Tensor:
        """The probability that one of ``count`` siblings is kept: 1 - (1 - beta)^count."""
        chance = kept_mass(distance, division(distance, count))
        return -torch.expm1(count * torch.log1p(-chance))


def kept_mass(distance: Tensor, rho: Tensor) -> Tensor:
    """beta(rho), the probability that one sibling is kept, batch-wise."""
    return shared_mass(distance, rho.log()) / rho


def division(distance: Tensor, count: int) -> Tensor:
    """The root rho in [1, K] of 1 - (1 - beta)^K = rho beta, batch-wise, by bisection; 1 for equal laws.

    Unique, since the left side falls with rho and the right one rises; both are 0 where the tails underflow.
    """
    low, high = torch.ones_like(distance), torch.full_like(distance, count)
    for _ in range(60):
        rho = (low + high) / 2
        kept = kept_mass(distance, rho)
        more = -torch.expm1(count * torch.log1p(-kept)) > rho * kept
        low, high = torch.where(more, rho, low), torch.where(more, high, rho)
    return high
