"""The sizes of MAR models: the three published ones, and small ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Images of ``tokens`` of ``dim`` numbers each, in ``classes``; a backbone of ``width``, with ``depth`` blocks in
    the encoder and as many in the decoder, of ``heads``; ``buffer`` places that hold the class; a diffusion head of
    ``head_depth`` blocks of ``head_width``.

    Raises ValueError where the width is no multiple of the heads.
    """

    width: int
    depth: int
    heads: int
    head_depth: int
    head_width: int
    tokens: int = 256
    dim: int = 16
    classes: int = 1000
    buffer: int = 64

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not split into {self.heads} heads; give a multiple")


BASE = Shape(width=768, depth=12, heads=12, head_depth=6, head_width=1024)
LARGE = Shape(width=1024, depth=16, heads=16, head_depth=8, head_width=1280)
HUGE = Shape(width=1280, depth=20, heads=16, head_depth=12, head_width=1536)
TINY = Shape(width=32, depth=2, heads=4, head_depth=2, head_width=48, tokens=16, classes=10, buffer=4)
"""For tests."""
SMALL_DIGITS = Shape(width=64, depth=2, heads=4, head_depth=2, head_width=64, tokens=16, dim=4, classes=10, buffer=4)
"""8 x 8 digits, as 16 patches of 2 x 2."""
DIGITS = Shape(width=128, depth=3, heads=4, head_depth=3, head_width=128, tokens=49, dim=16, classes=10, buffer=8)
"""28 x 28 digits, as 49 patches of 4 x 4."""
