"""The network of MAR's diffusion head: from a noisy token, its level and a condition to noise and variance."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from distributions.mar.layers import EPSILON, Linear

FREQUENCIES = 128


def waves(time: Tensor) -> Tensor:
    """cos and sin (*, 256) of ``time`` (*) at frequencies 1e4^(-k / 128), k = 0..127 (Vaswani et al. 1706.03762)."""
    place = torch.arange(FREQUENCIES, dtype=torch.float64, device=time.device)
    turned = time.double().unsqueeze(-1) * (-math.log(1e4) / FREQUENCIES * place).exp()
    return torch.cat((turned.cos(), turned.sin()), -1)


class TimeEmbedding(nn.Module):
    """Two layers over ``waves`` of the time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(Linear(2 * FREQUENCIES, width), nn.SiLU(), Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        """(*) to (*, W)."""
        out: Tensor = self.mlp(waves(time).to(next(self.parameters()).dtype))
        return out


class ResidualBlock(nn.Module):
    """x + gate mlp(norm(x) (1 + scale) + shift), the three made of the condition (DiT, Peebles and Xie 2212.09748)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = nn.Sequential(Linear(width, width), nn.SiLU(), Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(width, 3 * width))

    def forward(self, value: Tensor, told: Tensor) -> Tensor:
        """(*, W), and what is told (*, W), to (*, W)."""
        shift, scale, gate = self.adaLN_modulation(told).chunk(3, -1)
        out: Tensor = value + gate * self.mlp(self.in_ln(value) * (1 + scale) + shift)
        return out


class FinalLayer(nn.Module):
    """A norm without weights of its own, shifted and scaled by the condition, and a matrix."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear = Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(width, 2 * width))

    def forward(self, value: Tensor, told: Tensor) -> Tensor:
        """(*, W), and what is told (*, W), to (*, out)."""
        shift, scale = self.adaLN_modulation(told).chunk(2, -1)
        normed = functional.layer_norm(value, value.shape[-1:], eps=EPSILON)
        out: Tensor = self.linear(normed * (1 + scale) + shift)
        return out


class HeadNetwork(nn.Module):
    """The MLP with adaptive normalisation that MAR draws a token with (2406.11838, section 3.2 and appendix B).

    One token at a time: nothing passes from one to another. Time and condition are embedded and added; this sum
    modulates every block.
    """

    def __init__(self, dim: int, condition: int, width: int, depth: int) -> None:
        super().__init__()
        self.dim, self.condition = dim, condition
        self.time_embed = TimeEmbedding(width)
        self.cond_embed = Linear(condition, width)
        self.input_proj = Linear(dim, width)
        self.res_blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.final_layer = FinalLayer(width, 2 * dim)

    @property
    def dtype(self) -> torch.dtype:
        """That in which the network runs."""
        return self.input_proj.weight.dtype

    def forward(self, value: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """The predicted noise and v (*batch, 2 d) of ``value`` (*batch, d) under ``condition`` (*batch, c).

        ``time``, () or (*batch,): the level 0..999 of the training chain. The variance lies at (v + 1) / 2
        of its range.
        """
        hidden, condition = self.input_proj(value.to(self.dtype)), condition.to(self.dtype)
        told = self.time_embed(time) + self.cond_embed(condition)
        for block in self.res_blocks:
            hidden = block(hidden, told)
        out: Tensor = self.final_layer(hidden, told)
        return out


class DiffusionLoss(nn.Module):
    """The place of the head's network among a model's weights."""

    def __init__(self, dim: int, condition: int, width: int, depth: int) -> None:
        super().__init__()
        self.net = HeadNetwork(dim, condition, width, depth)
