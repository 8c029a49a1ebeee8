"""The masked autoregressive model: what the tokens that are there say of every token that is not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distributions.mar.head import DiffusionLoss, HeadNetwork
from distributions.mar.layers import EPSILON, Block, Dropped, Embedding, Linear
from distributions.mar.shapes import BASE, DIGITS, HUGE, LARGE, SMALL_DIGITS, TINY, Shape

NOBODY = -1
"""The label of no class: the unconditional model."""


class Mar(nn.Module):
    """MAR (Li et al. 2406.11838): an encoder of the visible tokens, a decoder of all places, and a diffusion head.

    Weights have the names and shapes of the official checkpoints (LTH14/mar, fe470ac). They are zero until they are
    loaded (``loading.load``) or drawn (``initial.draw``), and ask for no gradient until they are trained.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, places = shape.width, shape.buffer + shape.tokens
        self.fake_latent = nn.Parameter(torch.zeros(1, width))
        self.encoder_pos_embed_learned = nn.Parameter(torch.zeros(1, places, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed_learned = nn.Parameter(torch.zeros(1, places, width))
        self.diffusion_pos_embed_learned = nn.Parameter(torch.zeros(1, shape.tokens, width))
        self.class_emb = Embedding(shape.classes, width)
        self.z_proj = Linear(shape.dim, width)
        self.z_proj_ln = nn.LayerNorm(width, eps=EPSILON)
        self.encoder_blocks = nn.ModuleList(Block(width, shape.heads) for _ in range(shape.depth))
        self.encoder_norm = nn.LayerNorm(width, eps=EPSILON)
        self.decoder_embed = Linear(width, width)
        self.decoder_blocks = nn.ModuleList(Block(width, shape.heads) for _ in range(shape.depth))
        self.decoder_norm = nn.LayerNorm(width, eps=EPSILON)
        self.diffloss = DiffusionLoss(shape.dim, width, shape.head_width, shape.head_depth)
        self.requires_grad_(False)

    @property
    def head(self) -> HeadNetwork:
        """The network of the diffusion head."""
        return self.diffloss.net

    def named(self, label: Tensor) -> Tensor:
        """The embedding (rows, D) of classes (rows,); NOBODY has one of its own."""
        given = self.class_emb(label.clamp(min=0))
        return torch.where((label == NOBODY).unsqueeze(-1), self.fake_latent, given)

    def forward(self, tokens: Tensor, masked: Tensor, label: Tensor, dropped: Dropped | None = None) -> Tensor:
        """The condition z (rows, N, D) of every place, given the tokens (rows, N, d) that are not ``masked`` (rows, N).

        ``label`` (rows,). Rows may have different numbers of visible tokens; those with fewer are padded, and nobody
        reads the padding. What stands at masked places is not looked at.
        """
        seen, present = self._visible(masked)
        hidden = self.encode(tokens, label, seen, present, dropped)
        return self.decode(hidden, seen, present, dropped)

    def _visible(self, masked: Tensor) -> tuple[Tensor, Tensor | None]:
        """The places (rows, L) of buffer and visible tokens in raster order, and which of them are ``present``.

        None where all are. Padding is at masked places.
        """
        hidden = torch.nn.functional.pad(masked, (self.shape.buffer, 0))
        count = (~hidden).sum(1)
        least, most = (int(end) for end in count.aminmax()) if len(count) else (hidden.shape[1],) * 2
        place = hidden.to(torch.int8).argsort(dim=1, stable=True)[:, :most]
        return place, None if most == least else torch.arange(most, device=count.device) < count.unsqueeze(1)

    def encode(
        self, tokens: Tensor, label: Tensor, seen: Tensor, present: Tensor | None, dropped: Dropped | None = None
    ) -> Tensor:
        """The encoder's output (rows, L, D) at the places ``seen`` (rows, L)."""
        hidden: Tensor = self.z_proj(tokens.to(self.z_proj.weight.dtype))
        given = self.named(label).unsqueeze(1).expand(-1, self.shape.buffer, -1)
        hidden = self.z_proj_ln(torch.cat((given, hidden), 1) + self.encoder_pos_embed_learned)
        hidden = hidden.gather(1, seen.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        mask = None if present is None else present[:, None, None]
        hidden = _through(self.encoder_blocks, hidden, mask, dropped, "encoder")
        hidden = self.encoder_norm(hidden)
        return hidden

    def decode(self, hidden: Tensor, seen: Tensor, present: Tensor | None, dropped: Dropped | None = None) -> Tensor:
        """The condition (rows, N, D) of every place; masked ones hold the mask token until the decoder fills them."""
        hidden = self.decoder_embed(hidden)
        if present is not None:
            hidden = torch.where(present.unsqueeze(-1), hidden, self.mask_token)
        full = self.mask_token.expand(len(hidden), self.decoder_pos_embed_learned.shape[1], -1)
        full = full.scatter(1, seen.unsqueeze(-1).expand_as(hidden), hidden) + self.decoder_pos_embed_learned
        full = _through(self.decoder_blocks, full, None, dropped, "decoder")
        out: Tensor = self.decoder_norm(full)[:, self.shape.buffer :] + self.diffusion_pos_embed_learned
        return out


def _through(blocks: nn.ModuleList, value: Tensor, mask: Tensor | None, dropped: Dropped | None, site: str) -> Tensor:
    for number, block in enumerate(blocks):
        named = None if dropped is None else _at(dropped, f"{site}.{number}")
        value, _ = block(value, mask, None, named)
    return value


def _at(dropped: Dropped, site: str) -> Dropped:
    return lambda value, name: dropped(value, f"{site}.{name}")


def mar_base() -> Mar:
    """MAR-B: 207,924,768 parameters. With ``torch.device("meta")`` as the context, without memory."""
    return Mar(BASE)


def mar_large() -> Mar:
    """MAR-L: 478,326,304 parameters."""
    return Mar(LARGE)


def mar_huge() -> Mar:
    """MAR-H: 942,403,104 parameters."""
    return Mar(HUGE)


def mar_tiny() -> Mar:
    """For tests: 101,856 parameters, 16 tokens of 16 dimensions."""
    return Mar(TINY)


def mar_small_digits() -> Mar:
    """For 8 x 8 digits: 16 tokens of 4 dimensions."""
    return Mar(SMALL_DIGITS)


def mar_digits() -> Mar:
    """For 28 x 28 digits: 49 tokens of 16 dimensions."""
    return Mar(DIGITS)
