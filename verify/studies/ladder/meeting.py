"""Where the coalescing coupling loses: how far apart the two chains' means are, and who parts and meets when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distributions.datasets import conditions
from distributions.law import Law
from distributions.tape import Tape
from verify.gaussian.maximal import Coupling, maximal
from verify.gaussian.pair import Pair
from verify.paths import follow, link
from verify.studies.ladder.chains import Definition, Heads


@dataclass(frozen=True, eq=False)
class Meeting:
    """A coalescing walk, step by step from the noisiest: ``noise`` of the level that a step t leads to.

    ``together`` (T + 1,): the share of paths that are one point, the start included. ``parted`` and ``healed`` (T,): of
    those together before a step the share that is not after it, and the other way round (NaN of none). ``distance``
    (3, T): quartiles of delta_t = |difference of the means / draft's sd| at the draft's own points, and ``stretch``
    (T,): the median of |log of the ratio of sd| summed over coordinates; either is what a step can lose by itself.
    """

    noise: Tensor
    together: Tensor
    parted: Tensor
    healed: Tensor
    distance: Tensor
    stretch: Tensor

    @property
    def loss(self) -> Tensor:
        """The share of all paths that part, step by step."""
        return self.together[:-1] * self.parted

    @property
    def late(self) -> float:
        """The share of all partings that is in the last five steps."""
        loss = self.loss.nan_to_num(0.0)
        return float(loss[-5:].sum() / loss.sum()) if float(loss.sum()) else 0.0

    @property
    def again(self) -> float:
        """The share of the parted that meet again in a step, over the last five."""
        return float(self.healed[-5:].nanmean())


def meeting(heads: Heads, definition: Definition, rows: int, tape: Tape, couple: Coupling = maximal) -> Meeting:
    """Walk ``rows`` drafted paths beside the target's."""
    condition = conditions(tape, rows)
    target, draft = (definition.paths(head, condition) for head in (heads.target, heads.drafter))
    path = draft.sample(tape, "draft")
    same: list[Tensor] = []

    def watched(value: Tensor, ours: Law, theirs: Law, some: Tape, site: str) -> Tensor:
        moved = couple(value, ours, theirs, some, site)
        same.append((moved == value).all(-1))
        return moved

    beside = follow(path, draft, target, watched, tape)
    watched(path[..., -1, :], beside.target, beside.draft, tape, "follow.0")
    far, wide = [], []
    for place in range(1, path.shape[-2]):
        pair = Pair.of(link(target, place, path), link(draft, place, path))
        far.append(torch.linalg.vector_norm(pair.shift, dim=-1))
        wide.append(pair.stretch.log().abs().sum(-1))
    now = torch.stack(same).double()
    before, after = now[:-1], now[1:]
    return Meeting(
        target.kernel.schedule.noise.flip(0)[1:],  # type: ignore[attr-defined]
        now.mean(1),
        (before * (1 - after)).sum(1) / before.sum(1),
        ((1 - before) * after).sum(1) / (1 - before).sum(1),
        torch.quantile(torch.stack(far), torch.tensor([0.25, 0.5, 0.75]).to(path), dim=1),
        torch.stack(wide).median(1).values,
    )


def remedies(steps: Sequence[int]) -> list[Definition]:
    """What may help: other grids, more noise in every step and in the last ones, and a shared or a learned variance."""
    found = [Definition(count, variance) for count in steps for variance in ("small", "middle", "large", "learned")]
    middle = steps[len(steps) // 2]
    found += [Definition(middle, "large", temperature) for temperature in (0.7, 1.3)]
    return found + [Definition(middle, "large", cut=cut) for cut in (1, 2, 4)]
