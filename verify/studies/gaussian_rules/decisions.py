"""Which draft a rule keeps, as a law: its coins are read from the rule itself, and integrated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from distributions.tape import GeneratorTape
from verify.decode import parents
from verify.records import Outcome
from verify.studies.gaussian_rules.cells import REACH, cumulative, integrals
from verify.studies.gaussian_rules.given import ask
from verify.verifier import Verifier

PROBES = 512


class NotOnTheLine(ValueError):
    """This rule's law is no integral over one place, for the reason given."""


def phi(place: Tensor) -> Tensor:
    """The density of N(0, 1)."""
    density: Tensor = torch.exp(-place.square() / 2) / math.sqrt(2 * math.pi)
    return density


@dataclass(frozen=True, eq=False)
class Decisions:
    """How a rule decides, as it was seen to: which node becomes the first token, -1 for none, after each pattern of
    coins. ``alone``: the coin of a node depends on its own place only.
    """

    rule: Verifier
    nodes: int
    distance: float
    first: dict[tuple[bool, ...], int]
    alone: bool

    def coins(self, place: Tensor) -> Tensor:
        """The chance (rows, N) of every coin for drafts at ``place`` (rows, N)."""
        found = coins(self.rule, place, self.distance)
        assert found is not None
        return found

    def chances(self, coin: Tensor) -> Tensor:
        """From the chances of coins (rows, N), those (rows, N) of every node to be the first token."""
        chance = torch.zeros_like(coin)
        for pattern, node in self.first.items():
            if node >= 0:
                chance[:, node] += torch.where(torch.tensor(pattern), coin, 1 - coin).prod(-1)
        return chance

    @property
    def error(self) -> float:
        """To what each integral over a place is taken: less far where the density itself is an integral."""
        return 1e-14 if self.alone else 1e-10

    def density(self) -> Callable[[Tensor], Tensor]:
        """The density of the first token at a place, on the event that it was drafted."""
        if self.alone:
            mean = self.means

            def kept(place: Tensor) -> Tensor:
                coin = self.coins(place.unsqueeze(-1).expand(-1, self.nodes))
                total = torch.zeros_like(place)
                for node in set(self.first.values()) - {-1}:
                    rest = mean.expand_as(coin).clone()
                    rest[:, node] = coin[:, node]
                    total += self.chances(rest)[:, node]
                return phi(place) * total

            return kept
        if self.nodes != 2 or len(set(self.first.values()) - {-1}) > 1:
            raise NotOnTheLine(f"a coin depends on all of {self.nodes} places")
        return lambda place: phi(place) * sum(self._beside(place, node) for node in set(self.first.values()) - {-1})

    def kept(self) -> float:
        """The probability that the first token was drafted."""
        if self.alone:
            return float(self.chances(self.means.unsqueeze(0)).sum())
        return float(cumulative(self.density(), torch.linspace(-9, REACH, 20).double(), -REACH, self.error)[-1])

    @cached_property
    def means(self) -> Tensor:
        """The chance (N,) of each coin, its own place integrated."""
        ends = torch.linspace(-REACH, REACH, 21, dtype=torch.float64)

        def mean(node: int) -> Tensor:
            def density(place: Tensor, _: Tensor) -> Tensor:
                return phi(place) * self.coins(place.unsqueeze(-1).expand(-1, self.nodes))[:, node]

            return integrals(density, ends[:-1], ends[1:]).sum()

        return torch.stack([mean(node) for node in range(self.nodes)])

    def _beside(self, place: Tensor, node: int) -> Tensor:
        """The chance of a node at ``place`` to be the first token, the other one integrated."""
        panels = 10
        ends = torch.linspace(-REACH, REACH, panels + 1, dtype=torch.float64)

        def density(other: Tensor, cell: Tensor) -> Tensor:
            both = torch.stack((place[cell // panels], other), -1)
            return phi(other) * self.chances(self.coins(both if node == 0 else both.flip(1)))[:, node]

        low, high = (part.repeat(len(place)) for part in (ends[:-1], ends[1:]))
        return integrals(density, low, high, 1e-12).reshape(-1, panels).sum(-1)


def coins(rule: Verifier, place: Tensor, distance: float) -> Tensor | None:
    """The chances (rows, N) of the coins that ``rule`` tosses for drafts at ``place`` (rows, N).

    As the rule asks for them; where it asks for a uniform and decides itself, the chance it states in ``log_accept``,
    if its decision turns there. None for a rule that decides by anything else.
    """
    outcome, asked = ask(rule, place, distance, accept=torch.zeros_like(place))
    early = [item for item in asked if item.site.split(".")[0] not in ("residual", "bonus")]
    if len(early) != 1 or not early[0].site.startswith("accept"):
        return None
    return early[0].chance.reshape(place.shape) if early[0].kind == "coin" else outcome.log_accept.exp()


def decisions(rule: Verifier, nodes: int, distance: float) -> Decisions:
    """Look at a rule's decisions on random drafts. Raises NotOnTheLine where they are not functions of coins."""
    tape = GeneratorTape(1)
    place = tape.normal("place", (PROBES, nodes)) + distance / 2 * tape.uniform("shift", (PROBES, nodes))
    chance = coins(rule, place, distance)
    if chance is None:
        raise NotOnTheLine("it draws more than coins before it decides")
    first: dict[tuple[bool, ...], int] = {}
    answers = [tape.uniform("coin", (PROBES, nodes)) for _ in range(8)]
    answers += [(chance + side * 1e-9).clamp(0, 1 - 2**-53) for side in (-1, 1)]
    siblings = bool((parents(rule, nodes) < 0).all())
    for accept in answers:
        outcome, _ = ask(rule, place, distance, accept=accept)
        node = first_token(outcome, siblings)
        for pattern, which in zip((accept < chance).tolist(), node.tolist(), strict=True):
            if first.setdefault(tuple(pattern), which) != which:
                raise NotOnTheLine("equal coins do not make equal decisions")
    other = coins(rule, place.flip(0), distance)
    assert other is not None
    alone = nodes == 1
    if not alone:
        moved = [place.flip(0).index_copy(1, torch.tensor([node]), place[:, [node]]) for node in range(nodes)]
        again = torch.stack(
            [found[:, n] for n, at in enumerate(moved) if (found := coins(rule, at, distance)) is not None], 1
        )
        alone = bool(torch.allclose(again, chance, rtol=1e-9, atol=1e-14))
    return Decisions(rule, nodes, distance, first, alone)


def first_token(outcome: Outcome, siblings: bool) -> Tensor:
    """The node (rows,) that became the first token, -1 where it was none."""
    if siblings:
        return torch.where(outcome.kept.any(1), outcome.kept.long().argmax(1), -1)
    return outcome.kept[:, 0].long() - 1
