"""Rejection whose acceptance is another function of the two densities: rounding, tempering, scaling, raising."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import conclude

Acceptance = Callable[[Tensor, Tensor], Tensor]
"""Of log target and log draft at the drafts: the probability to keep them, which is clamped to [0, 1]."""


@dataclass(frozen=True)
class AlteredAcceptance:
    """``rejection`` that keeps a draft with probability ``accept(log target, log draft)``; the residual stays exact.

    The sites of its draws are those of ``rejection``. Its bias lies between E (a' - a*)+ and the larger of that and
    E (a* - a')+ (``verify.checks.white_box``).
    """

    accept: Acceptance
    claim: ClassVar[Claim] = Claim(exact=False, reference="an altered acceptance", note="as the function alters it")

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        after, prior = target[:, : draft.value.shape[1]].log_prob(draft.value), draft.law.log_prob(draft.value)
        chance = self.accept(after, prior).double().clamp(0.0, 1.0)
        return conclude(draft, target, tape.coin("accept", chance), chance.log(), tape)


@dataclass(frozen=True)
class Tempered:
    """The ratio to the power 1 / temperature."""

    temperature: float = 0.98

    def __call__(self, log_target: Tensor, log_draft: Tensor) -> Tensor:
        return ((log_target - log_draft) / self.temperature).exp()


@dataclass(frozen=True)
class Scaled:
    """The ratio times a factor."""

    factor: float = 1.02

    def __call__(self, log_target: Tensor, log_draft: Tensor) -> Tensor:
        return self.factor * (log_target - log_draft).exp()


@dataclass(frozen=True)
class Raised:
    """The ratio and a constant more."""

    by: float = 0.01

    def __call__(self, log_target: Tensor, log_draft: Tensor) -> Tensor:
        return (log_target - log_draft).exp() + self.by


@dataclass(frozen=True)
class RoundedRatio:
    """The exact ratio, rounded to a dtype."""

    dtype: torch.dtype = torch.bfloat16

    def __call__(self, log_target: Tensor, log_draft: Tensor) -> Tensor:
        return (log_target - log_draft).exp().to(self.dtype)


@dataclass(frozen=True)
class RoundedLogs:
    """Both logarithms rounded to a dtype, in which the rest is computed."""

    dtype: torch.dtype = torch.float32

    def __call__(self, log_target: Tensor, log_draft: Tensor) -> Tensor:
        return (log_target.to(self.dtype) - log_draft.to(self.dtype)).exp()
