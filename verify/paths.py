"""Verifying paths: the target's chain walked beside a drafted one, step by step, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distributions.law import Law
from distributions.path import PathLaw
from distributions.tape import Tape
from verify.gaussian.maximal import Coupling
from verify.records import Draft
from verify.residual import ThinningCapped, log_ratio, thinned

TRIES = 100_000
"""Draws of a last point after which an unlimited residual gives up."""


@dataclass(frozen=True)
class Cost:
    """Evaluations of heads for one row of a round.

    To judge: of the ``target``, of which ``depth`` wait for one another (1: all at once), and of the ``drafter`` at its
    own points, which a drafter that keeps its means need not repeat. ``replacement``: the least and the most
    evaluations of the target in addition, after a rejection. A bonus is a path of the target's own, T in sequence.
    """

    target: int
    depth: int
    drafter: int
    replacement: tuple[float, float] = (0, 0)


def path_laws(name: str, draft: Draft, target: Law) -> tuple[PathLaw, PathLaw]:
    """The laws of the drafted paths, the drafter's and the target's, batch (rows, N) both, for the rule ``name``.

    Raises TypeError for laws that are not paths, ValueError for chains of different lengths or dimensions, and for
    laws whose last step adds no noise: no rule can compare those, for they are mutually singular.
    """
    if not isinstance(draft.law, PathLaw) or not isinstance(target, PathLaw):
        kinds = sorted({type(law).__name__ for law in (draft.law, target)} - {"PathLaw"})
        raise TypeError(f"{name} needs laws of paths and got {', '.join(kinds)}; use rejection")
    if draft.law.event_shape != target.event_shape:
        raise ValueError(f"paths {draft.law.event_shape} and {target.event_shape} differ; give both as many steps")
    if not (draft.law.last_noise and target.last_noise):
        raise ValueError(f"{name} needs densities, and a last step without noise has none; set last_noise to True")
    return draft.law, target[:, : draft.value.shape[1]]


def link(law: PathLaw, place: int, path: Tensor) -> Law:
    """The law of point number ``place`` of a path (*batch, T + 1, d) given the point before: at 0, the start."""
    if place == 0:
        return law.kernel.start()
    return law.kernel.step(law.kernel.steps - place + 1, path[..., place - 1, :])


def log_ratios(path: Tensor, draft: PathLaw, target: PathLaw) -> Tensor:
    """log target - log draft of every link of the drafted ``path``, on its own points: (*batch, T + 1), start first.

    Their sum is the log-ratio of the path. No link waits for another.
    """
    every = [
        log_ratio(path[..., place, :], link(target, place, path), link(draft, place, path))
        for place in range(path.shape[-2])
    ]
    return torch.stack(every, -1)


@dataclass(frozen=True, eq=False)
class Beside:
    """The target's ``path`` (*batch, T + 1, d) down to x_1, with the drafted x_0 as its last point; and the laws of x_0
    given x_1, the ``target``'s given its own and the ``draft``'s given the drafted one.
    """

    path: Tensor
    target: Law
    draft: Law


def follow(path: Tensor, draft: PathLaw, target: PathLaw, couple: Coupling, tape: Tape, site: str = "follow") -> Beside:
    """Walk the target's chain beside the drafted ``path`` (*batch, T + 1, d), all of the batch at once, down to x_1.

    Point by point, the target's law given its own last point is coupled with the draft's draw: given the target's past
    and the draft's, its next point has the law of its kernel. So its path has exactly the target's law, whatever the
    coupling and whatever happened before (lemma L7 with the steps done so far as auxiliary variables). The caller
    couples the last step. T evaluations in sequence of either head, the laws of x_0 included.
    """
    ours, last = path.clone(), path.shape[-2] - 1
    for place in range(last):
        laws = link(target, place, ours), link(draft, place, path)
        ours[..., place, :] = couple(path[..., place, :], *laws, tape, f"{site}.{last - place}")
    return Beside(ours, link(target, last, ours), link(draft, last, path))


def finish(path: Tensor, parted: Tensor, draft: PathLaw, target: PathLaw, replace: Coupling, tape: Tape) -> Tensor:
    """Paths (M, T + 1, d) of the target that leave the drafted ``path`` at point ``parted`` (M,), and go on alone.

    The point itself is ``replace`` of the rejected one, what follows is the target's own chain with fresh noise.
    """
    ours = path.clone()
    for place in range(int(parted.min()) if len(parted) else 0, path.shape[-2]):
        for alone in (True, False):
            rows = torch.nonzero(parted < place if alone else parted == place).squeeze(1)
            if not len(rows):
                continue
            law, some, site = link(target[rows], place, ours[rows]), tape[rows], f"alone.{path.shape[-2] - 1 - place}"
            if alone:
                ours[rows, place] = law.sample(some, site)
            else:
                prior = link(draft[rows], place, path[rows])
                ours[rows, place] = replace(path[rows, place], law, prior, some, f"{site}.residual")
    return ours


def last_residual(
    target: Law, draft: Law, log_weight: Tensor, tape: Tape, site: str = "residual", tries: int | None = None
) -> Tensor:
    """Points (M, d) of the density proportional to (weight p - q)+, by drawing p and keeping with the probability
    (weight p - q)+ / (weight p) (2411.11925, corollary 1).

    ``log_weight`` (M,). After ``tries`` draws a row is left at zero. Without a limit ThinningCapped is raised in the
    end: (weight p - q)+ may have next to no mass where the weight is below 1, and the published loop does not end.
    """
    found, left = thinned(target, draft, -log_weight, tape, site, TRIES if tries is None else tries)
    if len(left) and tries is None:
        raise ThinningCapped(
            f"{len(left)} of {len(found)} rows of {site!r} kept none of {TRIES} draws: (weight target - draft)+ has "
            "next to no mass, as happens where the drafter's variances are the smaller ones; limit the tries"
        )
    found[left] = 0
    return found
