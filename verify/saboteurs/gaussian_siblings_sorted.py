"""Gaussian siblings are tried in the order of their places, the likeliest under the target first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distributions.law import Law
from distributions.tape import Tape
from verify.gaussian.frame import sibling_frame
from verify.records import Claim, Defect, Draft, Outcome
from verify.verifiers.gaussian_recursive_rejection import GaussianRecursiveRejection


@dataclass(frozen=True)
class GaussianSiblingsSorted(GaussianRecursiveRejection):
    """D-GRS whose siblings are sorted by their place s along the line, the largest ratio p / q first. In this order
    they are no independent draws of q: the first is the largest of them.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="gaussian",
        reference="a mutant of D-GRS, 2609.17691",
        note="drawing order is lost, as in ggml-org/llama.cpp #5625 for tokens",
    )
    defect: ClassVar[Defect] = Defect(
        bug="siblings are sorted by the target before they are tried",
        bias_a=0.18710143,
        bias_b=0.43616431,
        caught_by=("branches", "ks", "chi_square_32", "chi_square_512"),
        draft_length=4,
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """As D-GRS, by falling place. ``kept`` and ``log_accept`` are in drawing order again."""
        order = sibling_frame("gaussian_siblings_sorted", draft, target).place(draft.value).argsort(1, descending=True)
        value = draft.value.gather(1, order.unsqueeze(-1).expand_as(draft.value))
        made = super().verify(Draft(value, draft.law, draft.parent), target, tape)
        back = order.argsort(1)
        return Outcome(made.value, made.length, made.kept.gather(1, back), made.log_accept.gather(1, back))
