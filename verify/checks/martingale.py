"""Martingale test of emitted tokens against the target's conditionals, position by position, context by context."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy.special import betaincinv
from torch import Tensor

from verify.records import CheckClaim

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


def departures(
    emitted: Sequence[tuple[int, ...]], target: Row, drafter: Row, vocab: int, groups: int = 8
) -> list[Departure]:
    """Every feature of the emitted blocks: for each position, tokens grouped by the ratio of target to drafter.

    ``target(prefix)`` and ``drafter(prefix)`` give laws (V,). Where the vocabulary has no more than ``groups`` tokens
    each is its own group.
    """
    sums: dict[tuple[int, int], list[float]] = {}
    cache: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}
    impossible = 0
    first = ""
    for tokens in emitted:
        for position, token in enumerate(tokens):
            prefix = tokens[:position]
            if prefix not in cache:
                law = target(prefix)
                group = _grouped(law, drafter(prefix), groups)
                cache[prefix] = law, group, torch.zeros(groups, dtype=torch.float64).index_add_(0, group, law)
            law, group, chance = cache[prefix]
            if not law[token] > 0:
                impossible += 1
                first = first or f"token {token} at position {position + 1}, after {list(prefix)}"
                break  # what the target says after an impossible prefix is no evidence
            hit = int(group[token])
            for k, mass in enumerate(chance.tolist()):
                cell = sums.setdefault((position, k), [0.0, 0.0, 0.0])
                cell[0] += (k == hit) - mass
                cell[1] += mass * (1 - mass)
                cell[2] += ((k == hit) - mass) ** 2
    found = [
        Departure(position, f"ratio group {k + 1} of {groups}", excess, variance, squares, len(emitted))
        for (position, k), (excess, variance, squares) in sorted(sums.items())
    ]
    if impossible:
        found.insert(0, Departure(-1, first, float(impossible), 0.0, 0.0, len(emitted), impossible=True))
    return found


def _grouped(law: Tensor, other: Tensor, groups: int) -> Tensor:
    """Tokens in order of increasing target-to-drafter ratio, cut into groups of about equal target mass."""
    if len(law) <= groups:
        return torch.arange(len(law))
    order = torch.argsort(torch.where(other > 0, law / other.clamp(min=1e-300), math.inf), stable=True)
    before = law[order].cumsum(0) - law[order]
    group = torch.empty(len(law), dtype=torch.long)
    group[order] = (before * groups).long().clamp(max=groups - 1)
    return group
