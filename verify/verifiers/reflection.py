"""Reflection: a rejected Gaussian draft is mirrored in the plane half-way between the means; nothing more is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.couplings import reflection_overlap
from verify.gaussian.frame import Frame, first_rejected
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude


@dataclass(frozen=True)
class Reflection:
    """Keep each drafted node with probability min(1, target / draft); mirror the first rejected one, so that its place
    s on the line through the means becomes delta - s (lemma A13: Bou-Rabee, Eberle and Zimmer 1805.00452; De Bortoli et
    al. 2501.05370). For Gaussian drafts and targets of one covariance.

    Why it is exact. Along the line (``verify.gaussian.frame``) the draft has density phi(s), the target phi(s - delta),
    and across it both have one law, which the mirror leaves alone. What is kept has density min(phi(s), phi(s -
    delta)); what is rejected, (phi(s) - phi(s - delta))+, and delta - s carries this to (phi(s - delta) - phi(s))+. The
    sum is phi(s - delta). Acceptance 1 - TV = 2 Phi(-delta / 2).

    The mirrored place is a function of the draft: exact, because nothing else reads it. Raises TypeError for other
    laws and for unequal covariances, which rejection serves, and ValueError where the draft is not a chain.
    """

    claim: ClassVar[Claim] = Claim(exact=True, reference="De Bortoli et al. 2501.05370", laws="gaussian")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        frame = Frame.of("reflection", target[:, :-1], draft.law)
        place = frame.place(draft.value)
        log_accept = frame.log_ratio(place).clamp(max=0)
        accept = tape.coin("accept", log_accept.exp())
        where = first_rejected(accept)
        mirrored = frame[where].move(draft.value[where], frame.distance[where] - place[where])
        return conclude(draft, target, accept, log_accept, tape, lambda *_: mirrored)

    def acceptance(self, distance: Tensor) -> Tensor:
        """The probability that a node is kept whose target is ``distance`` away."""
        return reflection_overlap(distance)
