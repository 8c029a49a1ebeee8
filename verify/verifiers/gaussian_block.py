"""Block verification of Gaussian drafts: every prefix has a coin, and the excess mass has a closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.couplings import gamma_quantile
from verify.gaussian.frame import Along, Frame
from verify.gaussian.normals import excess_mass
from verify.records import Claim, Draft, Outcome
from verify.verifiers.block import keep_longest, times


@dataclass(frozen=True)
class GaussianBlock:
    """The rule ``block`` on Gaussian drafts and targets of one covariance a node (2606.13426; lemmas A2 and A14).

    The proof there asks nothing of a vocabulary: weights w_0 = 1, w_i = min(1, w_{i-1} p_i(x_i) / q_i(x_i)), coins h_i
    = S_i / (S_i + 1 - w_i) and h_N = w_N, the longest prefix whose coin succeeds, then (w_i p_{i+1} - q_{i+1})+. Along
    the line through the means both are explicit: with s* = delta / 2 - log w / delta, where w phi(s - delta) = phi(s),
    S = w Phi(delta - s*) - Phi(-s*) (``excess_mass``), and the residual's CDF on s > s* is inverted.

    What lies across the line is drawn afresh. The rejected draft's would do as well, although the laws of later nodes
    depend on it and their coins are tossed: given x_1..x_{i+1} the block ends at i with probability (1 - w_{i+1}) h_i,
    whatever comes later, and this depends on the place of x_{i+1} alone.

    Given x_1..x_i, at least i nodes are kept with probability w_i. Raises TypeError for other laws, of which block
    serves a vocabulary and rejection all, and for unequal covariances; ValueError where the draft is not a chain.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="2606.13426; Sun et al. 2403.10444", laws="gaussian")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        frame = Frame.of("gaussian_block", target[:, :-1], draft.law)
        ratio = frame.log_ratio(frame.place(draft.value))
        weights = [torch.zeros_like(ratio[:, 0])]
        for step in ratio.unbind(1):
            weights.append(times(weights[-1], step).clamp(max=0))
        return keep_longest(draft, target, torch.stack(weights, 1), tape, _mass, _rest)


def _mass(target: Law, draft: Law, log_weight: Tensor) -> Tensor:
    return excess_mass(Frame.of("gaussian_block", target, draft).distance, log_weight)


def _rest(target: Law, draft: Law, log_weight: Tensor) -> Along:
    return Along(Frame.of("gaussian_block", target, draft), gamma_quantile, (log_weight,))
