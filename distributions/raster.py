"""A random image model on a grid: every token depends on its neighbours to the left, above, and above to the left."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distributions.canvas import Painter
from distributions.tape import GeneratorTape


@dataclass(frozen=True, eq=False)
class Raster(Painter):
    """Images of ``height`` x ``width`` tokens in raster order, with logits sharpness * f(left, above, above left).

    f(a, b, c) = (A[a] + B[b] + C[c]) / sqrt(3) for three tables of standard normals, ``tables`` (3, V + 1, V), so f has
    unit variance; row V of each table stands for a neighbour outside the image. ``sharpness`` is an inverse
    temperature: 0 is the uniform law, and the entropy falls as it grows. Raises ValueError for tables of other shapes.
    """

    tables: Tensor
    sharpness: float
    height: int = 16
    width: int = 16

    def __post_init__(self) -> None:
        shape = tuple(self.tables.shape)
        if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2] + 1:
            raise ValueError(f"tables must be (3, V + 1, V), and are {shape}; row V is for a neighbour outside")

    @staticmethod
    def random(vocab: int, sharpness: float, seed: int = 0, height: int = 16, width: int = 16) -> Raster:
        """The model whose tables are drawn from the tape of ``seed``: the same at every sharpness."""
        tables = GeneratorTape(seed).normal("raster.tables", (3, vocab + 1, vocab))
        return Raster(tables, sharpness, height, width)

    @property
    def size(self) -> int:  # type: ignore[override]
        """Tokens of one image."""
        return self.height * self.width

    @property
    def vocab(self) -> int:  # type: ignore[override]
        return self.tables.shape[-1]

    def scores(self, tokens: Tensor, place: Tensor, label: Tensor) -> Tensor:
        """(B, K, V), by three look-ups; the model has no label and ignores it."""
        wide = torch.nn.functional.pad(tokens, (0, 1), value=self.vocab)
        first_column, first_row = place % self.width == 0, place < self.width
        found = torch.zeros(*place.shape, self.vocab, dtype=torch.float64)
        for table, back, outside in (
            (self.tables[0], 1, first_column),
            (self.tables[1], self.width, first_row),
            (self.tables[2], self.width + 1, first_column | first_row),
        ):
            neighbour = wide.gather(1, torch.where(outside, self.size, place - back))
            found = found + table[neighbour]
        return found * (self.sharpness / 3**0.5)
