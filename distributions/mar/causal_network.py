"""The causal sibling of MAR: the same head on a transformer that reads the tokens before, in raster order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distributions.mar.backbone import NOBODY
from distributions.mar.head import DiffusionLoss, HeadNetwork
from distributions.mar.layers import EPSILON, Block, Dropped, Embedding, Linear
from distributions.mar.shapes import Shape


class CausalMar(nn.Module):
    """A causal transformer of MAR's blocks and MAR's head (2406.11838, section 3.3: raster order, causal attention).

    Place i reads token i - 1, and place 0 the class; its output is the condition z of token i. ``shape`` as for ``Mar``
    (``depth`` blocks in all, and no buffer). Weights are zero until they are loaded or drawn.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.fake_latent = nn.Parameter(torch.zeros(1, shape.width))
        self.pos_embed_learned = nn.Parameter(torch.zeros(1, shape.tokens, shape.width))
        self.diffusion_pos_embed_learned = nn.Parameter(torch.zeros(1, shape.tokens, shape.width))
        self.class_emb = Embedding(shape.classes, shape.width)
        self.z_proj = Linear(shape.dim, shape.width)
        self.z_proj_ln = nn.LayerNorm(shape.width, eps=EPSILON)
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=EPSILON)
        self.diffloss = DiffusionLoss(shape.dim, shape.width, shape.head_width, shape.head_depth)
        self.requires_grad_(False)

    @property
    def head(self) -> HeadNetwork:
        """The network of the diffusion head."""
        return self.diffloss.net

    def forward(
        self,
        read: Tensor,
        place: Tensor,
        label: Tensor,
        mask: Tensor,
        past: Tensor | None = None,
        dropped: Dropped | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The conditions (rows, n, D) of the tokens at ``place`` (rows, n), and keys and values of these places.

        ``read`` (rows, n, d): the token before each, not looked at at place 0. ``past`` (rows, layers, 2, heads, L,
        D / heads): keys and values of earlier ones; what is returned is like it, with n for L. ``mask``, True where a
        place may be read: (rows, 1, n, L + n) or what broadcasts to it. Places beyond the image are its last.
        """
        place = place.clamp(max=self.shape.tokens - 1)
        given = torch.where((label == NOBODY).unsqueeze(-1), self.fake_latent, self.class_emb(label.clamp(min=0)))
        first = (place == 0).unsqueeze(-1)
        hidden = torch.where(first, given.unsqueeze(1), self.z_proj(read.to(self.z_proj.weight.dtype)))
        hidden = self.z_proj_ln(hidden + self.pos_embed_learned[0, place])
        kept = []
        for layer, block in enumerate(self.blocks):
            hidden, own = block(hidden, mask, None if past is None else past[:, layer], _at(dropped, layer))
            kept.append(own)
        told: Tensor = self.norm(hidden) + self.diffusion_pos_embed_learned[0, place]
        return told, torch.stack(kept, 1)

    def whole(self, tokens: Tensor, label: Tensor, dropped: Dropped | None = None) -> Tensor:
        """The conditions (rows, N, D) of all tokens of finished images (rows, N, d), for training: one pass."""
        rows, size, _ = tokens.shape
        place = torch.arange(size, device=tokens.device)
        before = torch.nn.functional.pad(tokens[:, :-1], (0, 0, 1, 0))
        mask = (place.unsqueeze(1) >= place)[None, None]
        told: Tensor = self(before, place.expand(rows, -1), label, mask, None, dropped)[0]
        return told


def _at(dropped: Dropped | None, layer: int) -> Dropped | None:
    return None if dropped is None else lambda value, site: dropped(value, f"{layer}.{site}")
