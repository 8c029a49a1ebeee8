"""One tape for two programs: whatever else they draw, and in whatever order, at a shared site they draw the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distributions.streams import StreamTape


@dataclass(eq=False)
class SharedTape(StreamTape):
    """A ``StreamTape`` whose sites may go by other names: ``names`` maps those of a program to the shared ones.

    The k-th number that a row draws at a site is a function of (seed, shared name, row, k) alone, so two programs, each
    on a tape of its own with one seed, are coupled site by site. One of them alone sees independent noise, as on any
    tape: the coupling is in the pair. Names must stay apart: two sites of one program under one name share a stream,
    which is still independent noise, but pairs the draws of the other program with neither. Raises ValueError where a
    draw's rows are not the tape's.
    """

    names: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(seed: int, rows: int, names: Mapping[str, str] | None = None) -> SharedTape:
        """Streams for the rows 0 .. ``rows`` - 1."""
        return SharedTape(seed, torch.arange(rows), names=names or {})

    def uniform(self, site: str, shape: Sequence[int]) -> Tensor:
        return super().uniform(self.names.get(site, site), shape)

    def __getitem__(self, rows: Tensor) -> SharedTape:
        return SharedTape(self.seed, self.rows[rows], self._drawn, self.names)
