"""The proposals of the thinning come from the draft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.gaussian.frame import Frame
from verify.planted_gaussian import PlantedThinning
from verify.records import Claim, Defect
from verify.verifiers.poisson_race import beyond


@dataclass(frozen=True)
class GaussianResidualFromDraft(PlantedThinning):
    """Thins draws of q, not of p, with (1 - q / p)+: the replacement has the law (p - q)+ q / p, and hardly reaches
    where q << p. Bias (1/2) || (p - q)+ - TV (p - q)+ (q / p) / c ||_1, c the integral of (p - q)+ q / p.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="gaussian",
        reference="a mutant of the acceptance-rejection residual of 2411.11925",
        note="a proposal from the law at hand, which is the drafter's",
    )
    defect: ClassVar[Defect] = Defect(
        bug="the residual's proposals are drawn from the draft: what the target has beyond the draft never comes",
        bias_a=0.09236729,
        bias_b=0.00103909,
        caught_by=("branches", "ks", "chi_square_32", "chi_square_512"),
        draft_length=1,
    )

    def replace(self, target: Law, draft: Law, tape: Tape, site: str) -> Tensor:
        """(target - draft)+ draft / target, up to a factor. Raises TypeError for unequal covariances."""
        frame = Frame.of("gaussian_residual_from_draft", target, draft)
        place, left = frame.distance.clone(), torch.arange(len(frame.distance), device=frame.distance.device)
        while len(left):
            # Proposals on the draft's side of the middle are refused for certain: they are left out.
            near = frame[left]
            uniform = tape[left].uniform(f"{site}.proposal", left.shape)
            proposal = beyond(uniform, near.distance / 2)
            kept = tape[left].coin(f"{site}.keep", -torch.expm1(-near.log_ratio(proposal).clamp(min=0)))
            place[left[kept]] = proposal[kept]
            left = left[~kept]
        return frame.move(draft.sample(tape, f"{site}.across"), place)
