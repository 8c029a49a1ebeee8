"""The checks of each level of evidence, and where its rows come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from distributions.gaussian import Gaussian
from distributions.law import Law
from distributions.tape import GeneratorTape
from verify.certificate import Beside, OfLaws, Problem, exact_acceptance
from verify.checks import Check
from verify.checks.accepted_length import AcceptedLength
from verify.checks.betting import BettingBetween
from verify.checks.branches import Branches
from verify.checks.chi_square import ChiSquare
from verify.checks.classifier import Classifier
from verify.checks.coin import Coin
from verify.checks.coupling import Block, Coupling, Mismatch
from verify.checks.dependence import RowDependence
from verify.checks.excess_acceptance import ExcessAcceptance
from verify.checks.independence import Independence
from verify.checks.ks import KolmogorovSmirnov
from verify.checks.lags import Lags
from verify.checks.martingale import Martingale
from verify.checks.neyman import Neyman
from verify.checks.pooled_products import PooledProducts
from verify.checks.products import Products
from verify.checks.proposal import Proposal
from verify.checks.quadratic_witness import QuadraticWitness
from verify.checks.residual_law import ResidualLaw
from verify.checks.sliced import Sliced
from verify.checks.surprisal import Surprisal
from verify.checks.violations import Violations
from verify.checks.white_box import Differences, WhiteBox
from verify.decode import decode
from verify.engine.batteries import known_law, two_samples
from verify.records import Finding, Outcome
from verify.scenarios import Scenario
from verify.statistics.learned import Learner
from verify.statistics.trace import Trace, Traced
from verify.verifier import Verifier
from verify.verifiers.rejection import Rejection

LENGTH = 3
"""Tokens of a decoded sequence."""


@dataclass(frozen=True)
class FirstMismatch(Coupling):
    """Rejects at the first run that emits otherwise than an exact rule with the same draws: beside itself none does."""

    def judge(self, tally: Mismatch, alpha: float) -> Finding:
        return replace(super().judge(tally, alpha), p_value=0.0 if tally.emitted else 1.0)


@dataclass(frozen=True)
class CertifiedBias(WhiteBox):
    """Rejects where the lower bound on the bias is positive, at confidence 1 - ``alpha``."""

    def judge(self, tally: Differences, alpha: float) -> Finding:
        lower = replace(self, delta=alpha).lower(tally)
        return replace(super().judge(tally, alpha), p_value=0.0 if lower > 0 else 1.0)


def trace_checks(token_rule: bool = True, fresh: bool = True) -> list[Check]:
    """For rules that keep a node with probability min(1, target / draft), whose replacements are drawn ``fresh``; or
    for any that record their coins.
    """
    if not token_rule:
        rule: list[Check] = [Violations(False), Coin(False), AcceptedLength(False)]
    else:
        rule = [Violations(), Coin(), AcceptedLength(), ResidualLaw(), Proposal(), Independence(fresh)]
    return [*rule, ExcessAcceptance(), RowDependence(), Branches(), Martingale()]


def sequence_checks() -> list[Check]:
    """For sequences of tokens, whose model is known."""
    known: list[Check] = [KolmogorovSmirnov(), Neyman(), ChiSquare(64), ChiSquare(1024)]
    return [*known, Products(), PooledProducts(), Lags(), Surprisal()]


def on_the_line(law: Law) -> list[Check | Learner]:
    """The gate's checks against a known law without the one that asks for draws, which sees no more on the line."""
    return [item for item in known_law(law) if not isinstance(item, Learner)]


def few_samples() -> list[Check | Learner]:
    """The two-sample checks that cost least."""
    return [Sliced(), QuadraticWitness(), BettingBetween()]


def all_samples(slow: bool) -> list[Check | Learner]:
    """Every two-sample check; the classifier, of trees, only if the ``slow`` are asked for and it is installed."""
    wanted = slow and find_spec("sklearn") is not None
    return [item for item in two_samples() if wanted or not isinstance(item, Classifier)]


@dataclass(frozen=True)
class Emitted:
    """First tokens of a rule on a problem of laws, and the target's law."""

    rule: Verifier
    problem: OfLaws

    def __call__(self, rows: int, seed: int) -> tuple[Tensor, Law]:
        return _first(self.rule, self.problem, rows, GeneratorTape(seed)), self.problem.target


@dataclass(frozen=True)
class Against:
    """First tokens of a rule, and as many of another."""

    rule: Verifier
    problem: OfLaws
    other: Verifier

    def __call__(self, rows: int, seed: int) -> tuple[Tensor, Tensor]:
        sides = enumerate((self.rule, self.other))
        both = [_first(rule, self.problem, rows, GeneratorTape(2 * seed + side)) for side, rule in sides]
        return both[0], both[1]


@dataclass(frozen=True)
class Rounds:
    """One round of a rule on any problem."""

    rule: Verifier
    problem: Problem

    def __call__(self, rows: int, seed: int) -> tuple[Trace, None]:
        tape = GeneratorTape(seed)
        draft, target = self.problem(self.rule, rows, tape)
        return Trace.of(draft, target, self.rule.verify(draft, target, tape)), None


@dataclass(frozen=True)
class Coupled:
    """Blocks of a rule beside those of ``reference``."""

    rule: Verifier
    problem: Problem
    reference: Verifier = Rejection()

    def __call__(self, rows: int, seed: int) -> tuple[Block, Block]:
        beside = Beside(self.rule, self.reference, self.problem, rows, seed)
        _, target, ours, theirs = beside.runs(0, torch.arange(rows))
        return _block(ours, target), _block(theirs, target)


@dataclass(frozen=True)
class Opened:
    """Blocks of a rule that says with which probability it keeps, beside the probability that it should keep with."""

    rule: Verifier
    problem: Problem

    def __call__(self, rows: int, seed: int) -> tuple[Block, Tensor]:
        tape = GeneratorTape(seed)
        draft, target = self.problem(self.rule, rows, tape)
        made = self.rule.verify(draft, target, tape)
        astray = ~made.kept[:, 0] & (exact_acceptance(made.value, draft.law, target) < 0)
        block = replace(_block(made, target), log_accept=made.log_accept[:, 0], astray=astray)
        return block, exact_acceptance(draft.value, draft.law, target)


@dataclass(frozen=True)
class Turns:
    """A first round of a rule on two models of tokens, or a second one, by turns."""

    rule: Verifier
    pair: Scenario

    def __call__(self, rows: int, seed: int) -> tuple[Trace, None]:
        pair = self.pair
        return Traced(self.rule, pair.target, pair.drafter, pair.draft_length, rows, 2)(seed)


@dataclass(frozen=True)
class Decoded:
    """Sequences of a rule, and the target's model; or as many of the target's own sequences, both one-hot."""

    rule: Verifier
    pair: Scenario
    sampled: bool = False

    def __call__(self, rows: int, seed: int) -> tuple[Tensor, Any]:
        ours = self._decode(rows, 2 * seed)
        if not self.sampled:
            return ours, self.pair.target
        return self._hot(ours), self._hot(self._decode(rows, 2 * seed + 1, LENGTH))

    def _decode(self, rows: int, seed: int, prefill: int = 0) -> Tensor:
        pair = self.pair
        models, tape = (pair.target, pair.drafter, self.rule), GeneratorTape(seed)
        return decode(*models, pair.draft_length, LENGTH, tape, rows, prefill=prefill).tokens

    def _hot(self, tokens: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(tokens, self.pair.vocab).double().flatten(1)


def _block(made: Outcome, target: Law) -> Block:
    return Block(target.token(made.value), made.length, made.kept)


def _first(rule: Verifier, problem: OfLaws, rows: int, tape: GeneratorTape) -> Tensor:
    draft, target = problem(rule, rows, tape)
    return rule.verify(draft, target, tape).value[:, 0]


def gaussians(dim: int, apart: float, nodes: int = 1) -> OfLaws:
    """N(0, I), and a target whose mean is ``apart`` from it along the diagonal."""
    zero, one = torch.zeros(dim).double(), torch.ones(dim).double()
    return OfLaws(Gaussian(zero, one), Gaussian(zero + apart / dim**0.5, one), nodes)
