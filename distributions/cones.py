"""How probable it is that independent exponentials obey bounds on their ratios."""

from __future__ import annotations

import torch
from torch import Tensor

from distributions.distinct import distinct

LARGEST = 20_000_000
"""How many numbers the pieces of a simplex may have before a volume is given up."""


def mass(bound: Tensor) -> Tensor:
    """The probability (*batch) that independent exponentials obey E_k >= bound[i, k] E_i for all i and k.

    One winner i so far: 1 / sum_k bound[i, k]. Two: an integral over the ratio of their exponentials. More: a volume.
    """
    vocab = bound.shape[-1]
    zones = bound.reshape(-1, vocab, vocab)
    one, group = distinct(zones.flatten(1))
    zones = zones[one]
    known = (zones * (1 - torch.eye(vocab, dtype=torch.float64)) > 0).any(-1)  # the rows that say something
    winners = known.sum(-1)
    first, last = known.int().argmax(-1), vocab - 1 - known.int().flip(-1).argmax(-1)
    row = torch.arange(len(zones))
    total = 1 / zones[row, first].sum(-1)
    two, more = winners == 2, winners > 2
    total[two] = _between(zones[two], first[two], last[two])
    total[more] = _volume(zones[more])
    return torch.where(winners > 0, total, 1.0)[group].reshape(bound.shape[:-2])


def _between(zones: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """The mass (M,) of zones that bound E_k >= max(a_k E_i, b_k E_j), for a and b their rows ``i`` and ``j``.

    Formula: the integral of dr / (sum_k max(a_k, b_k r))^2 over r = E_j / E_i from a_j to 1 / b_i, with a_i = b_j = 1.
    Between the breakpoints a_k / b_k the denominator is (c + d r)^2, and a piece is (v - u) / ((c + d u) (c + d v)).
    """
    row = torch.arange(len(zones))
    low, high = zones[row, i], zones[row, j]  # a and b
    least, most = low[row, j].unsqueeze(-1), 1 / high[row, i].unsqueeze(-1)
    breaks = torch.where(high > 0, low / torch.where(high > 0, high, 1.0), torch.inf)
    ends = torch.cat([least, torch.maximum(torch.minimum(breaks, most), least).sort(-1).values, most], -1)
    start, stop = ends[:, :-1].unsqueeze(-1), ends[:, 1:].unsqueeze(-1)
    flat = breaks.unsqueeze(1) >= stop  # here a_k is the larger of the two
    some = (low.unsqueeze(1) * flat).sum(-1)
    slope = (high.unsqueeze(1) * ~flat).sum(-1)
    start, stop = start.squeeze(-1), stop.squeeze(-1)
    piece = (1 - start / stop) / ((some + slope * start) * (some / stop + slope))
    wide = most > least * (1 + 1e-15)  # where they meet but for rounding, one token has won twice
    return torch.where((stop > start) & wide, piece, 0.0).sum(-1)


def _volume(zones: Tensor) -> Tensor:
    """The mass (M,) of any zones (M, V, V), as a volume.

    The simplex {E >= 0, sum E = 1} is cut by one bound after the other. A simplex with corners on both sides is split
    on an edge between them, at the point where the bound is met; its volume splits in the ratio of the edge's parts,
    and the halves are split again until no simplex is on both sides. What is on the wrong side is dropped.
    """
    if len(zones) > 4096:  # a few at a time, for their pieces
        return torch.cat([_volume(zones[:4096]), _volume(zones[4096:])])
    vocab = zones.shape[-1]
    corner = torch.eye(vocab, dtype=torch.float64).repeat(len(zones), 1, 1)
    volume = torch.ones(len(zones), dtype=torch.float64)
    owner = torch.arange(len(zones))
    for i in range(vocab):
        for k in range(vocab):
            if i != k and bool((zones[:, i, k] > 0).any()):
                corner, volume, owner = _cut(corner, volume, owner, zones[:, i, k], i, k)
    return torch.zeros(len(zones), dtype=torch.float64).index_add(0, owner, volume)


def _cut(
    corner: Tensor, volume: Tensor, owner: Tensor, bounds: Tensor, i: int, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The parts of simplices (M, V corners, V) with E_k >= bounds[owner] E_i."""
    pull = bounds[owner].unsqueeze(-1) * corner[..., i]
    side = corner[..., k] - pull
    side = torch.where(
        side.abs() <= 1e-15 * (corner[..., k] + pull), 0.0, side
    )  # a corner on the bound, but for rounding
    done = []
    while True:
        both = (side > 0).any(-1) & (side < 0).any(-1)
        inside = ~both & (side >= 0).all(-1)
        done.append((corner[inside], volume[inside], owner[inside]))
        if not bool(both.any()):
            break
        if len(owner) * corner.shape[-1] ** 2 > LARGEST:
            from distributions.enumeration import EnumerationExploded  # which imports this module

            raise EnumerationExploded(
                f"three races on one noise of {corner.shape[-1]} tokens cut the simplex into more than {len(owner)} "
                "pieces; use a smaller vocabulary"
            )
        corner, volume, owner, side = corner[both], volume[both], owner[both], side[both]
        row, high, low = torch.arange(len(owner)), side.argmax(-1), side.argmin(-1)
        up, down = side[row, high], -side[row, low]
        part = down / (up + down)  # the weight of the upper corner where the bound is met
        middle = part.unsqueeze(-1) * corner[row, high] + (1 - part).unsqueeze(-1) * corner[row, low]
        halves = []
        for place, share in ((low, up / (up + down)), (high, part)):
            new, at = corner.clone(), side.clone()
            new[row, place], at[row, place] = middle, 0.0
            halves.append((new, volume * share, owner, at))
        corner, volume, owner, side = (torch.cat(parts) for parts in zip(*halves, strict=True))
    return tuple(torch.cat(parts) for parts in zip(*done, strict=True))  # type: ignore[return-value]
