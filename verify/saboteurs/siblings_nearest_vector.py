"""What lies across the line is taken from the sibling whose whole vector is nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from distributions.law import Law
from distributions.tape import Tape
from verify.gaussian.frame import sibling_frame
from verify.records import Claim, Defect, Draft, Outcome
from verify.verifiers.gaussian_k_seq import GaussianKSeq


@dataclass(frozen=True)
class SiblingsNearestVector(GaussianKSeq):
    """K-SEQ that draws the place of the replacement along the line only, and takes the part across it from one of the
    refused siblings: from the one nearest to that point of the line, in all coordinates. Such a sibling has a small
    part across. Chosen ``by_place`` alone, which is independent of what lies across, any of them would do, and the rule
    is exact.
    """

    by_place: bool = False
    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="gaussian",
        reference="a mutant of SpecTr on Gaussians, Sun et al. 2310.15141",
        note="the orthogonal part is reused by a choice that depends on it",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the orthogonal part of the replacement is that of the nearest sibling, by the full distance",
        bias_a=0.0184223,
        bias_b=0.001106,
        caught_by=("branches", "ks", "chi_square_32"),
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """A kept sibling and a bonus, or one token. ``target`` has batch (rows, N + 1)."""
        made = super().verify(draft, target, tape)
        none = torch.nonzero(~made.kept.any(1)).squeeze(1)
        frame = sibling_frame("siblings_nearest_vector", draft, target)[none]
        place = frame.place(made.value[none, :1])
        point, drafted = frame.move(frame.draft.mean, place), draft.value[none]
        apart = frame.place(drafted) - place if self.by_place else torch.linalg.vector_norm(drafted - point, dim=-1)
        nearest = apart.abs().argmin(-1)
        value, rows = made.value.clone(), torch.arange(len(none))
        value[none, 0] = frame[:, 0].move(drafted[rows, nearest], place[:, 0])
        return Outcome(value, made.length, made.kept, made.log_accept)
