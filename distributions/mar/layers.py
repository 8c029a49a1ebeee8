"""Layers that draw nothing when they are made, and the transformer block of MAR."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-6
Dropped = Callable[[Tensor, str], Tensor]
"""Dropout: a value and the site of its draw -> the value with some entries set to zero, the others scaled up."""


class Linear(nn.Linear):
    """torch's, but zero until weights are loaded or drawn from a tape."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Embedding(nn.Embedding):
    """torch's, but zero until weights are loaded or drawn from a tape."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


class Convolution(nn.Conv2d):
    """torch's, but zero until weights are loaded or drawn from a tape."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Attention(nn.Module):
    """Attention with the three projections in one matrix: queries, keys, values, each by heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(
        self, value: Tensor, mask: Tensor | None = None, past: Tensor | None = None, dropped: Dropped | None = None
    ) -> tuple[Tensor, Tensor]:
        """The mixed values (B, n, D), and the keys and values (B, 2, heads, n, D / heads) of these n places.

        ``past``: those of L earlier places. ``mask``, True where a place may be read, broadcasts to (B, heads, n, L +
        n); without it every place is.
        """
        rows, length, width = value.shape
        parts = self.qkv(value).reshape(rows, length, 3, self.heads, -1).permute(0, 2, 3, 1, 4)
        query, own = parts[:, 0], parts[:, 1:]
        key, content = (own if past is None else torch.cat((past, own), -2)).unbind(1)
        if dropped is None:
            mixed = functional.scaled_dot_product_attention(query, key, content, attn_mask=mask)
        else:
            score = query @ key.mT / (width // self.heads) ** 0.5
            score = score if mask is None else score.masked_fill(~mask, float("-inf"))
            mixed = dropped(score.softmax(-1), "attention") @ content
        out = self.proj(mixed.transpose(1, 2).reshape(rows, length, width))
        return out if dropped is None else dropped(out, "project"), own


class Perceptron(nn.Module):
    """Two layers, four times as wide between, with the exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, 4 * width)
        self.fc2 = Linear(4 * width, width)

    def forward(self, value: Tensor, dropped: Dropped | None = None) -> Tensor:
        """(*, D) to (*, D)."""
        if dropped is None:
            out: Tensor = self.fc2(functional.gelu(self.fc1(value)))
            return out
        return dropped(self.fc2(dropped(functional.gelu(self.fc1(value)), "wide")), "narrow")


class Block(nn.Module):
    """A pre-norm transformer block (Dosovitskiy et al. 2010.11929): attention, then the perceptron, both added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = Perceptron(width)

    def forward(
        self, value: Tensor, mask: Tensor | None = None, past: Tensor | None = None, dropped: Dropped | None = None
    ) -> tuple[Tensor, Tensor]:
        """As ``Attention``: the block's output, and this layer's keys and values."""
        mixed, own = self.attn(self.norm1(value), mask, past, dropped)
        value = value + mixed
        return value + self.mlp(self.norm2(value), dropped), own
