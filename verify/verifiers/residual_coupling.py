"""The residual coupling: a rejected Gaussian draft moves along one line, to a place drawn from the residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.couplings import gamma_quantile, reflection_overlap
from verify.gaussian.frame import Frame, first_rejected
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude


@dataclass(frozen=True)
class ResidualCoupling:
    """Keep each drafted node with probability min(1, target / draft); at the first rejected one keep what lies across
    the line through the means and draw its place from (phi(s - delta) - phi(s))+ (lemma A14: 2606.13426). For Gaussian
    drafts and targets of one covariance.

    Why it is exact. Whether a node is kept depends on its place s alone, so that what lies across is still N(0, I) and
    independent after a rejection, and may be used again; the place is replaced by the residual's: together, min(phi(s),
    phi(s - delta)) + (phi(s - delta) - phi(s))+ = phi(s - delta). Acceptance 1 - TV = 2 Phi(-delta / 2), as for
    rejection, but one uniform replaces its thinning, whose number of draws has no bounded variance; unlike the
    mirrored place of reflection, this one tells nothing of the draft's.

    Raises TypeError for other laws and for unequal covariances, which rejection serves, and ValueError where the draft
    is not a chain.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="residual coupling, 2606.13426", laws="gaussian")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        frame = Frame.of("residual_coupling", target[:, :-1], draft.law)
        log_accept = frame.log_ratio(frame.place(draft.value)).clamp(max=0)
        accept = tape.coin("accept", log_accept.exp())
        where = first_rejected(accept)

        def replace(law: Law, prior: Law, some: Tape, site: str) -> Tensor:
            near = frame[where]
            uniform = some.uniform(site, near.distance.shape)
            place = gamma_quantile(uniform, near.distance, torch.zeros_like(uniform))
            return near.move(draft.value[where], place)

        return conclude(draft, target, accept, log_accept, tape, replace)

    def acceptance(self, distance: Tensor) -> Tensor:
        """The probability that a node is kept whose target is ``distance`` away."""
        return reflection_overlap(distance)
