"""A constant is added to every entry of the residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.jacobi import Index, categorical
from verify.records import Claim, Draft
from verify.residual import excess
from verify.verifiers.sjd import Sjd


@dataclass(frozen=True)
class SjdResidualEpsilon(Sjd):
    """The replacement is drawn from (p - q)+ + epsilon, excluded tokens and all.

    A rejection leaves the residual with probability about V epsilon / TV: 6e-6 for 64,000 tokens and a rejection that
    was sure, and more the rarer it was.
    """

    epsilon: float = 1e-10
    claim: ClassVar[Claim] = Claim(
        exact=False,
        laws="categorical",
        reference="junhyukso/SCD at 7322379, cosmos, sjd/speculative_sampler.py",
        note="a guard against division by zero, in the wrong place",
    )

    def replacement(self, draft: Draft, target: Categorical, at: Index, tape: Tape) -> Tensor:
        """A token of the residual with a floor."""
        over = excess(target[at], categorical(draft.law)[at])
        return tape.categorical("residual", over + self.epsilon)
