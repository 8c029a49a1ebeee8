"""Martingale test of emitted tokens against the target's conditionals, position by position, context by context."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import Tape
from verify.checks import Check, Tally
from verify.records import CheckClaim, Finding
from verify.statistics.trace import Trace, by_row, nothing

Row = Callable[[tuple[int, ...]], Tensor]


@dataclass(frozen=True)
class Departure:
    """One feature: tokens of ``group`` at ``position`` (0-based), counted against their conditional probabilities.

    ``excess`` = sum(1{token in group} - P(group | prefix)) over the runs that reached the position, of ``n`` runs in
    all; ``p_value`` by Freedman's inequality, valid at every n; ``impossible``: a token of target probability zero.
    """

    position: int
    group: str
    excess: float
    variance: float
    squares: float
    n: int
    impossible: bool = False

    claim: ClassVar[CheckClaim] = CheckClaim(
        level="exact",
        against="any dependence of a token's law on position, branch or context, that its group's frequency shows",
        blind_to="departures that cancel within a group",
    )

    @property
    def p_value(self) -> float:
        """2 exp(-S^2 / (2 (V + |S|/3))): Freedman (Annals of Probability 3, 1975), increments bounded by one."""
        if self.impossible:
            return 0.0
        size = abs(self.excess)
        return min(1.0, 2 * math.exp(-(size**2) / (2 * (self.variance + size / 3)))) if size else 1.0

    def bias_lower(self, delta: float) -> float:
        """A lower bound on the total variation of the completed sequence law, at confidence 1 - delta.

        The feature has mean zero under the target, values in [-1, 1] and range one, and is zero once the target
        continues: so its mean is at most the total variation. Its mean is bounded by the empirical Bernstein inequality
        of Maurer and Pontil (COLT 2009, theorem 4); the probability of an impossible token by Clopper and Pearson.
        """
        if self.impossible:
            hits = round(self.excess)
            return float(betaincinv(hits, self.n - hits + 1, delta))
        mean = self.excess / self.n
        variance = max(0.0, self.squares / self.n - mean**2) * self.n / max(self.n - 1, 1)
        log = math.log(4 / delta)
        return max(0.0, abs(mean) - math.sqrt(2 * variance * log / self.n) - 2 * 7 * log / (3 * max(self.n - 1, 1)))

    def __str__(self) -> str:
        if self.impossible:
            return (
                f"emitted {self.group}, where the target gives it probability zero ({self.excess:.0f} of {self.n} runs)"
            )
        return f"token {self.position + 1}, {self.group}: {self.excess / self.n:+.4f} of all runs too many"


@dataclass(frozen=True)
class Example:
    """The first words that are not empty."""

    words: str = ""

    def __add__(self, other: Example) -> Example:
        return self if self.words else other


@dataclass(frozen=True, eq=False)
class Departed(Tally):
    """``excess``, ``variance`` and ``squares`` (positions, groups) over ``n`` runs, of which ``reached`` (positions,)
    got so far; ``impossible`` tokens, of target probability zero, and an ``example``.
    """

    excess: Tensor
    variance: Tensor
    squares: Tensor
    reached: Tensor
    impossible: int
    example: Example

    def departures(self) -> list[Departure]:
        """Every feature of the positions reached; before them, what is impossible."""
        positions, groups = self.excess.shape
        sums = torch.stack((self.excess, self.variance, self.squares), -1).tolist()
        found = [
            Departure(position, f"group {k + 1} of {groups}", off, variance, squares, self.n)
            for position in range(positions)
            for k, (off, variance, squares) in enumerate(sums[position])
            if self.reached[position]
        ]
        if self.impossible:
            first = Departure(-1, self.example.words, float(self.impossible), 0.0, 0.0, self.n, impossible=True)
            return [first, *found]
        return found


def departures(
    emitted: Sequence[tuple[int, ...]], target: Row, drafter: Row, vocab: int, groups: int = 8
) -> list[Departure]:
    """Every feature of the emitted blocks: for each position, tokens grouped by the ratio of target to drafter.

    ``target(prefix)`` and ``drafter(prefix)`` give laws (V,). Where the vocabulary has no more than ``groups`` tokens
    each is its own group.
    """
    sums = torch.zeros(3, max(map(len, emitted), default=0), groups, dtype=torch.float64).numpy()
    reached = torch.zeros(sums.shape[1], dtype=torch.long)
    cache: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    impossible, example = 0, Example()
    for tokens in emitted:
        for position, token in enumerate(tokens):
            prefix = tokens[:position]
            if prefix not in cache:
                law = target(prefix)
                group = grouped(law.unsqueeze(0), drafter(prefix).unsqueeze(0), groups)[0]
                chance = torch.zeros(groups, dtype=torch.float64).index_add_(0, group, law)
                cache[prefix] = law.numpy(), group.numpy(), chance.numpy()
            known, group_of, mass = cache[prefix]
            if not known[token] > 0:
                impossible += 1
                example += Example(f"token {token} at position {position + 1}, after {list(prefix)}")
                break  # what the target says after an impossible prefix is no evidence
            off = -mass
            off[group_of[token]] += 1
            reached[position] += 1
            sums[:, position] += off, mass * (1 - mass), off**2
    parts = torch.as_tensor(sums)
    return Departed(len(emitted), parts[0], parts[1], parts[2], reached, impossible, example).departures()


def grouped(law: Tensor, other: Tensor, groups: int) -> Tensor:
    """Tokens (n, V) in order of increasing target-to-drafter ratio, cut into groups of about equal target mass."""
    if law.shape[-1] <= groups:
        return torch.arange(law.shape[-1]).expand_as(law)
    return ranked(law, other, groups)


def ranked(law: Tensor, other: Tensor, groups: int) -> Tensor:
    """The same, however few tokens there are: a place in the order may then have a group of its own."""
    order = torch.argsort(torch.where(other > 0, law / other.clamp(min=1e-300), math.inf), stable=True)
    ordered = law.gather(-1, order)
    before = ordered.cumsum(-1) - ordered
    return torch.empty_like(order).scatter(-1, order, (before * groups).long().clamp(max=groups - 1))


@dataclass(frozen=True)
class DepartureSums:
    """The tokens of a trace on a finite vocabulary, position by position, as long as they follow drafted ones: 1{token
    in group} - P(group). The groups: by the ratio of target to draft (of a bonus, for which there is no draft, by the
    target alone), which differ by context; and, of small vocabularies, the tokens themselves.
    """

    groups: int = 8

    def __call__(self, sample: Trace, truth: Any, tape: Tape) -> Departed:
        wide = sample.nodes + 1
        sums, reached = torch.zeros(3, wide, 2 * self.groups, dtype=torch.float64), torch.zeros(wide, dtype=torch.long)
        target, draft = sample.target, sample.draft
        if not isinstance(target, Categorical) or not isinstance(draft, Categorical):
            return Departed(0, sums[0], sums[1], sums[2], reached, 0, Example())
        child = torch.full((wide,), -1).scatter(0, sample.parent.flip(0) + 1, torch.arange(sample.nodes).flip(0))
        impossible, example = 0, Example()
        for position in range(wide):
            rows = torch.nonzero(sample.context[:, position] >= 0).squeeze(1)
            token, column = sample.emitted[rows, position], sample.context[rows, position]
            law, node = by_row(target, rows, column).probs, child[column]
            other = by_row(draft, rows, node.clamp(min=0)).probs
            other = torch.where((node < 0).unsqueeze(1), 1.0, other)
            inside = (token >= 0) & (token < law.shape[-1])
            chance = law.gather(-1, torch.where(inside, token, 0).unsqueeze(-1)).squeeze(-1)
            good = inside & (chance > 0)
            impossible += int((~good).sum())
            if not bool(good.all()):
                example += Example(f"token {int(token[~good][0])} at position {position + 1}")
            rows, token, law, other = rows[good], token[good], law[good], other[good]
            for half, group in enumerate((ranked(law, other, self.groups), grouped(law, other, self.groups))):
                mass = torch.zeros(len(rows), self.groups, dtype=torch.float64).scatter_add_(-1, group, law)
                hit = torch.nn.functional.one_hot(group.gather(-1, token.unsqueeze(-1)).squeeze(-1), self.groups)
                parts = (hit - mass, mass * (1 - mass), (hit - mass).square())
                sums[:, position, half * self.groups :][:, : self.groups] = torch.stack([part.sum(0) for part in parts])
            reached[position] = len(rows)
        return Departed(len(sample), sums[0], sums[1], sums[2], reached, impossible, example)


@dataclass(frozen=True)
class Martingale(Check):
    """Every emitted token of a finite vocabulary against the target's conditional law of it: the largest departure, by
    Freedman's inequality, Bonferroni over positions and groups. For every lossless rule, of whatever kind.
    """

    groups: int = 8
    claim: ClassVar[CheckClaim] = Departure.claim

    @property
    def statistic(self) -> DepartureSums:
        return DepartureSums(self.groups)

    def judge(self, tally: Departed, alpha: float) -> Finding:
        found = tally.departures()
        if not found:
            return nothing("martingale", "no tokens of a finite vocabulary", alpha)
        worst = min(found, key=lambda item: item.p_value)
        logs, n = math.log(2 * len(found) / alpha), tally.n
        return Finding(
            verifier="",
            scenario="",
            check="martingale",
            statistic=worst.bias_lower(alpha / len(found)),
            p_value=min(1.0, len(found) * worst.p_value),
            alpha=alpha,
            n=n,
            seed=0,
            note=str(worst),
            metric="tv",
            # Freedman's critical value at the largest variance of a group, 1/4 a run; 1.28 deviations beyond it.
            smallest=(math.sqrt(logs / 2) + 0.64) / math.sqrt(n) + logs / (3 * n),
        )
