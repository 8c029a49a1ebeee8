"""The convolutional blocks of the KL-16 autoencoder (Rombach et al. 2112.10752)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from distributions.mar.layers import EPSILON, Convolution

GROUPS = 32


def norm(channels: int) -> nn.GroupNorm:
    """Group norm in 32 groups."""
    return nn.GroupNorm(GROUPS, channels, eps=EPSILON)


class Residual(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))), x through a 1 x 1 convolution where the channels change."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(before), Convolution(before, after, 3, padding=1)
        self.norm2, self.conv2 = norm(after), Convolution(after, after, 3, padding=1)
        self.nin_shortcut = Convolution(before, after, 1) if before != after else None

    def forward(self, value: Tensor) -> Tensor:
        """(rows, before, h, w) to (rows, after, h, w)."""
        inner: Tensor = self.conv1(functional.silu(self.norm1(value)))
        inner = self.conv2(functional.silu(self.norm2(inner)))
        return inner + (value if self.nin_shortcut is None else self.nin_shortcut(value))


class Mixing(nn.Module):
    """x + attention over all places, one head, every projection a 1 x 1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (Convolution(channels, channels, 1) for _ in range(4))

    def forward(self, value: Tensor) -> Tensor:
        """(rows, channels, h, w), the same back."""
        normed = self.norm(value)
        query, key, content = (layer(normed).flatten(2).mT.contiguous() for layer in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(query, key, content)
        out: Tensor = self.proj_out(mixed.mT.reshape(value.shape))
        return value + out


class Down(nn.Module):
    """Half the height and width: a 3 x 3 convolution of stride 2, padded on the right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Convolution(channels, channels, 3, stride=2)

    def forward(self, value: Tensor) -> Tensor:
        """(rows, channels, h, w) to (rows, channels, h / 2, w / 2)."""
        out: Tensor = self.conv(functional.pad(value, (0, 1, 0, 1)))
        return out


class Up(nn.Module):
    """Twice the height and width: every value repeated, then a 3 x 3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Convolution(channels, channels, 3, padding=1)

    def forward(self, value: Tensor) -> Tensor:
        """(rows, channels, h, w) to (rows, channels, 2 h, 2 w)."""
        out: Tensor = self.conv(functional.interpolate(value, scale_factor=2.0, mode="nearest"))
        return out


class Level(nn.Module):
    """The residual blocks at one size, attention after each where the level has it, and the change of size."""

    def __init__(self, before: int, after: int, blocks: int, attends: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(Residual(before if not number else after, after) for number in range(blocks))
        self.attn = nn.ModuleList(Mixing(after) for _ in range(blocks if attends else 0))
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def forward(self, value: Tensor) -> Tensor:
        """(rows, before, h, w) to (rows, after, ...)."""
        for number, block in enumerate(self.block):
            value = block(value)
            if len(self.attn):
                value = self.attn[number](value)
        for change in (self.downsample, self.upsample):
            value = value if change is None else change(value)
        return value


class Middle(nn.Module):
    """A residual block, attention, a residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = (
            Residual(channels, channels),
            Mixing(channels),
            Residual(channels, channels),
        )

    def forward(self, value: Tensor) -> Tensor:
        """(rows, channels, h, w), the same back."""
        out: Tensor = self.block_2(self.attn_1(self.block_1(value)))
        return out


def closed(value: Tensor, last: nn.GroupNorm, out: nn.Module) -> Tensor:
    """The end of either half: swish of a norm, then a convolution."""
    result: Tensor = out(torch.nn.functional.silu(last(value)))
    return result
