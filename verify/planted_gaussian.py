"""Right rules for Gaussian tokens in parts, so that a planted defect is the one part that is wrong."""

from __future__ import annotations

from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law
from distributions.tape import Tape
from verify.gaussian.frame import Frame, first_rejected
from verify.records import Draft, Outcome
from verify.residual import conclude, log_ratio, thin, thinned


class PlantedThinning:
    """Rejection of Gaussian drafts, whose residual is thinned. A defect replaces one of its parts; as it stands, it is
    exact, at any covariances.
    """

    def log_accept(self, value: Tensor, target: Law, draft: Law) -> Tensor:
        """log of the probability (rows, N) of keeping each node, given that it is examined: min(1, target / draft)."""
        return log_ratio(value, target, draft).clamp(max=0)

    def replace(self, target: Law, draft: Law, tape: Tape, site: str) -> Tensor:
        """The replacement (rows, d) where a node is refused: a draw of (target - draft)+."""
        return thin(target, draft, tape, site)

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1).

        Raises TypeError for laws that are not Gaussian, and ValueError where the draft is not a chain.
        """
        for law in (target, draft.law):
            if not isinstance(law, (Gaussian, FullGaussian)):
                raise TypeError(f"this needs Gaussian laws and got a {type(law).__name__}")
        log_accept = self.log_accept(draft.value, target[:, : draft.value.shape[1]], draft.law)
        accept = tape.coin("accept", log_accept.exp())
        return conclude(draft, target, accept, log_accept, tape, self.replace)


class PlantedReflection:
    """Reflection of Gaussian drafts, one covariance. A defect replaces one of its parts; as it stands, it is exact."""

    def log_accept(self, ratio: Tensor) -> Tensor:
        """log of the probability of keeping a node, from the log-ratio of target and draft there."""
        return ratio.clamp(max=0)

    def place(self, place: Tensor, distance: Tensor) -> Tensor:
        """Where a refused draft goes, along the line through the means (``verify.gaussian.frame``): delta - s."""
        return distance - place

    def move(self, frame: Frame, value: Tensor, place: Tensor) -> Tensor:
        """The refused draft at its new place; what lies across the line stays."""
        return frame.move(value, place)

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1).

        Raises TypeError for other laws and unequal covariances, and ValueError where the draft is not a chain.
        """
        frame = Frame.of("this reflection", target[:, : draft.value.shape[1]], draft.law)
        place = frame.place(draft.value)
        log_accept = self.log_accept(frame.log_ratio(place))
        accept = tape.coin("accept", log_accept.exp())
        where = first_rejected(accept)
        refused, value = frame[where], draft.value[where]
        moved = self.move(refused, value, self.place(place[where], refused.distance))
        return conclude(draft, target, accept, log_accept, tape, lambda *_: moved)


def thin_padded(target: Law, draft: Law, tape: Tape, site: str, tries: int, padding: Tensor) -> Tensor:
    """As ``thin``, but at most ``tries`` times: rows that kept nothing by then are answered with their ``padding``."""
    value, left = thinned(target, draft, 0.0, tape, site, tries)
    value[left] = padding[left]
    return value
