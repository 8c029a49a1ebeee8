"""Are whole sequences as probable as the target says they should be: one number per sequence, at any vocabulary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from scipy.stats import norm
from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.checks import Check, Tally
from verify.records import CheckClaim, Finding
from verify.statistics.transform import laws


def surprise(sample: Tensor, law: Categorical) -> tuple[Tensor, Tensor]:
    """-log p(y) - H(p) of every token (n, T) under its conditional law, and the variance of -log p(Y), Y ~ p.

    ``law`` (n, T): of each token given those before it in its own sequence.
    """
    entropy = torch.special.entr(law.probs).sum(-1)
    log = torch.where(law.probs > 0, law.probs, 1.0).log()
    variance = (law.probs * (log + entropy.unsqueeze(-1)) ** 2).sum(-1)
    return -law.log_prob(sample) - entropy, variance


@dataclass(frozen=True, eq=False)
class SurpriseSums(Tally):
    """Over ``n`` tokens: the sum of their ``excess`` surprise and of its conditional ``variance``."""

    excess: float
    variance: float


@dataclass(frozen=True)
class Surprise:
    """``surprise`` of tokens (n, T) under a model, or under the Categorical that it gives them, of batch (n, T) or one
    that broadcasts to it. Raises TypeError for another truth.
    """

    def __call__(self, sample: Any, truth: Any, tape: Tape) -> SurpriseSums:
        law = laws(sample, truth)
        if not isinstance(law, Categorical):
            raise TypeError(f"surprisal needs the probabilities of every token and got a {type(law).__name__}")
        excess, variance = surprise(sample, law)
        return SurpriseSums(excess.numel(), float(excess.sum()), float(variance.expand_as(excess).sum()))


@dataclass(frozen=True)
class Surprisal(Check):
    """z-test of the mean of -log p(y_j | y_<j) - H(p_j) over all tokens of all sequences.

    Under the target each term has mean zero given the past, so their sum over a sequence is a martingale whose variance
    is the sum of the conditional variances of -log p. z = sum / sqrt(sum of variances) is standard normal in the limit
    of many tokens (martingale central limit theorem, Brown 1971). A token of probability zero has p-value 0.
    """

    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="a decoder that favours probable or improbable tokens, at any vocabulary and length",
        blind_to="biases that leave the mean log-probability of a sequence where it was",
    )

    @property
    def statistic(self) -> Surprise:
        return Surprise()

    def judge(self, tally: SurpriseSums, alpha: float) -> Finding:
        total, spread, n = tally.excess, math.sqrt(tally.variance), tally.n
        z = total / spread if spread > 0 else math.inf * total if total else 0.0
        return Finding(
            verifier="",
            scenario="",
            check="surprisal",
            statistic=z,
            p_value=2 * float(norm.sf(abs(z))),
            alpha=alpha,
            n=n,
            seed=0,
            note=f"{total / n:+.4f} nats a token",
            metric="nats",
            smallest=float(norm.isf(alpha / 2) + norm.isf(0.1)) * spread / n,
        )
