"""Small models of paths for the tests of the ladder: Gaussian and mixture data, whose denoisers are exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributions.gaussian import Gaussian
from distributions.heads import ExactHead
from distributions.law import Law
from distributions.mixture import Mixture
from distributions.path import Denoiser, Kernel, PathLaw
from distributions.reversal import Reversal
from distributions.schedule import Schedule, cosine, linear
from distributions.tape import Tape
from verify.records import Draft

Build = Callable[[Tensor], Kernel]


def double(value: object) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def normal_data(shift: float = 0.0, scale: float = 1.0, slope: float = 0.5) -> Callable[[Tensor], Mixture]:
    """N(shift + slope condition, scale^2 I)."""

    def data(condition: Tensor) -> Mixture:
        mean = (slope * condition + shift).unsqueeze(-2)
        return Mixture(torch.ones(mean.shape[:-1]), Gaussian(mean, double([scale]).expand(mean.shape[-1:])))

    return data


def mixed_data(centres: list[float], scales: list[float], shift: float = 0.0) -> Callable[[Tensor], Mixture]:
    """Components at ``centres`` of every coordinate, with ``scales``: several modes, or heavy tails."""

    def data(condition: Tensor) -> Mixture:
        offset = double(centres).unsqueeze(-1)
        mean = 0.5 * condition.unsqueeze(-2) + offset + shift
        return Mixture(torch.ones(mean.shape[:-1]), Gaussian(mean, double(scales).unsqueeze(-1).expand(mean.shape)))

    return data


def head(data: Callable[[Tensor], Mixture], dim: int, schedule: Schedule, fraction: float = 0.5, **more: Any) -> Build:
    """The denoiser of these data, by condition."""
    exact = ExactHead(data, torch.zeros(dim, dtype=torch.float64))
    return lambda condition: Denoiser(exact, schedule, condition, fraction=fraction, **more)


def reversal(schedule: Schedule, shift: float = 0.0, scale: float = 1.0, slope: float = 0.5) -> Build:
    """The exact reversal of N(shift + slope condition, scale^2 I)."""
    return lambda condition: Reversal(
        Gaussian(slope * condition + shift, double([scale]).expand(condition.shape[-1:])), schedule
    )


@dataclass(frozen=True, eq=False)
class Tokens:
    """A sequence model of paths whose condition is the last token; its state is that token (rows, d), first ones."""

    build: Build
    dim: int

    def start(self, rows: int, condition: Any = None) -> Tensor:
        return torch.ones(rows, self.dim, dtype=torch.float64)

    def law(self, state: Tensor, value: Tensor | None = None, parent: Tensor | None = None) -> Law:
        here = state.unsqueeze(1)
        return PathLaw(self.build(here if value is None else torch.cat([here, value[..., -1, :]], 1)))

    def extend(self, state: Tensor, value: Tensor, length: Tensor) -> Tensor:
        return value[torch.arange(len(value)), length - 1, -1]

    def select(self, state: Tensor, rows: Tensor) -> Tensor:
        return state[rows]


@dataclass(frozen=True, eq=False)
class Case:
    """A drafter and a target of tokens of ``dim`` numbers."""

    drafter: Build
    target: Build
    dim: int

    def round(self, rows: int, nodes: int, tape: Tape, verifier: object = None) -> tuple[Draft, Law]:
        """A draft for ``verifier`` and the target's laws after it, from the empty sequence."""
        from verify.decode import parents, policy, propose

        drafter, target = Tokens(self.drafter, self.dim), Tokens(self.target, self.dim)
        own = policy(verifier)  # type: ignore[arg-type]
        draft = propose(drafter, drafter.start(rows), parents(verifier, nodes), tape, own)  # type: ignore[arg-type]
        return draft, target.law(target.start(rows), draft.value, draft.parent)


def cases() -> dict[str, Case]:
    """What may differ between drafter and target, one thing at a time; steps from 5 to 25, dimensions 1, 2 and 16."""
    bell, wide = normal_data(scale=0.5), normal_data(0.1, 0.5)
    tails, modes = mixed_data([0.0, 0.0, 0.0], [0.05, 0.3, 3.0]), mixed_data([-2.0, 0.0, 1.5], [0.2, 0.1, 0.3])
    return {
        "means": Case(head(bell, 2, cosine(10)), head(wide, 2, cosine(10)), 2),
        "variances": Case(head(bell, 2, cosine(8), 0.45), head(bell, 2, cosine(8), 0.55), 2),
        "both, 16-D": Case(head(bell, 16, cosine(25), 0.5), head(normal_data(0.03, 0.5), 16, cosine(25), 0.52), 16),
        "heavy tails": Case(head(mixed_data([0.0], [0.7]), 1, cosine(6)), head(tails, 1, cosine(6)), 1),
        "modes": Case(head(modes, 1, linear(5)), head(mixed_data([-1.8, 0.1, 1.5], [0.2, 0.1, 0.3]), 1, linear(5)), 1),
        "schedules": Case(head(bell, 2, linear(7)), head(bell, 2, cosine(7)), 2),
        "temperature": Case(head(bell, 2, cosine(6)), head(bell, 2, cosine(6), temperature=0.9), 2),
        "guidance": Case(head(bell, 2, cosine(6)), head(bell, 2, cosine(6), guidance=1.5), 2),
        "reversals": Case(reversal(cosine(5), scale=1.2), reversal(cosine(5), 0.4, 1.0), 2),
    }


def innovations(path: Tensor, law: PathLaw) -> Tensor:
    """The standard normals (*batch, T + 1, d) that a path of Gaussian steps was made of, if it has the law."""
    from verify.gaussian.pair import Pair
    from verify.paths import link

    steps = [link(law, place, path) for place in range(path.shape[-2])]
    return torch.stack([Pair.of(step, step).noise(path[..., at, :], step) for at, step in enumerate(steps)], -2)


def phi(place: Tensor) -> Tensor:
    """The standard normal density."""
    return torch.exp(-place.square() / 2) / math.sqrt(2 * math.pi)
