"""A tape on which every row has a stream of its own, so that no draw depends on the rest of the batch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.special import ndtri

from distributions.tape import _Derived, earlier

GOLDEN = -7046029254386353131  # 2**64 / golden ratio, as int64
FACTORS = ((30, -4658895280553007687), (27, -7723592293110705685), (31, None))


@dataclass(eq=False)
class StreamTape(_Derived):
    """Draws that are functions of (``seed``, site, row, how many the row has drawn at this site), and of nothing else.

    Counter-based: splitmix64 (Steele, Lea and Flood, OOPSLA 2014) of the four numbers. A row that is alone, or beside
    others, or ahead of them in rounds, draws the same; so a decoder run at another batch size or window meets the same
    noise, position by position. A row that is named twice in ``tape[rows]`` draws twice, in order. Raises ValueError
    where a draw's rows are not the tape's.
    """

    seed: int
    rows: Tensor
    _drawn: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(seed: int, rows: int) -> StreamTape:
        """Streams for a batch of ``rows``."""
        return StreamTape(seed, torch.arange(rows))

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        if shape[0] != len(self.rows):
            raise ValueError(f"site {site!r} draws {shape[0]} rows on a tape of {len(self.rows)}; pass tape[rows]")
        size, most = math.prod(shape[1:]), int(self.rows.max()) + 1 if len(self.rows) else 0
        drawn = self._drawn.get(site, torch.zeros(0, dtype=torch.long))
        drawn = torch.nn.functional.pad(drawn, (0, max(0, most - len(drawn))))
        count = (drawn[self.rows] + size * earlier(self.rows)).unsqueeze(-1) + torch.arange(size)
        self._drawn[site] = drawn.index_add(0, self.rows, torch.full_like(self.rows, size))
        name = int.from_bytes(hashlib.blake2b(site.encode(), digest_size=8).digest(), "little", signed=True)
        key = _mixed(_mixed(torch.tensor(self.seed) + name) + self.rows * GOLDEN)
        bits = _mixed(key.unsqueeze(-1) + (count + 1) * GOLDEN)
        draws: Tensor = _shifted(bits, 11).double() * 2.0**-53
        return draws.reshape(tuple(shape))

    def normal(self, site: str, shape: Sequence[int]) -> Tensor:
        value: Tensor = ndtri((self.uniform(site, shape) + 2.0**-54).clamp(max=1 - 2.0**-53))  # never 0 or 1
        return value

    def __getitem__(self, rows: Tensor) -> StreamTape:
        return StreamTape(self.seed, self.rows[rows], self._drawn)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """A logical shift to the right of int64."""
    words: Tensor = (bits >> by) & ((1 << (64 - by)) - 1)
    return words


def _mixed(bits: Tensor) -> Tensor:
    """The finaliser of splitmix64; int64 arithmetic wraps."""
    for by, factor in FACTORS:
        bits = bits ^ _shifted(bits, by)
        bits = bits if factor is None else bits * factor
    return bits
