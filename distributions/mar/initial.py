"""Untrained weights, drawn from a tape as MAR draws them."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from distributions.mar.backbone import Mar
from distributions.mar.layers import Linear
from distributions.tape import Tape

SPREAD = 0.02
Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def draw(model: Module, tape: Tape, spread: float | None = None) -> Module:
    """The model with new weights, in place: matrices uniform (Glorot and Bengio 2010, eq. 16), embeddings N(0, .02^2).

    The matrices of the head's modulation and its last one are zero, as in MAR, so an untrained head predicts no noise.
    ``spread``: every matrix and bias N(0, spread^2 / fan-in), none zero, and norms near one: a model on which every
    weight matters, for tests and measurements. Raises ValueError for a model on the meta device.
    """
    for name, part in model.named_parameters():
        if part.is_meta:
            raise ValueError("a model on the meta device has no room for weights; use to_empty first")
        owner = model.get_submodule(name.rpartition(".")[0])
        part.copy_(_random(name, part, owner, tape, spread))
    return model


@torch.no_grad()
def lay_out(model: Mar) -> Mar:
    """Add to all three embeddings of places the waves of a square, in place, so that near places are alike.

    As in MAE, on which MAR is built (He et al. 2111.06377), but learned from there on; frequencies 1.5 to .1 a place.
    With embeddings N(0, .02^2) alone a small model hardly looks at other tokens after thousands of steps.
    """
    across, parts = round(model.shape.tokens**0.5), model.shape.width // 4
    turns = 1.5 * (-math.log(10) * 1.2 * torch.arange(parts) / parts).exp()
    place = torch.arange(model.shape.tokens).unsqueeze(-1)
    angles = [part * turns for part in (place // across, place % across)]
    found = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], -1)
    buffer = model.shape.buffer
    model.encoder_pos_embed_learned[0, buffer:] += found
    model.decoder_pos_embed_learned[0, buffer:] += found
    model.diffusion_pos_embed_learned[0] += found
    return model


def _random(name: str, part: Tensor, owner: nn.Module, tape: Tape, spread: float | None) -> Tensor:
    site, matrix = f"initial.{name}", isinstance(owner, (Linear, nn.Conv2d)) and name.endswith("weight")
    norm = isinstance(owner, (nn.LayerNorm, nn.GroupNorm))
    start = torch.full_like(part, float(norm and name.endswith("weight")))
    if spread is not None:
        scale = spread / math.sqrt(part[0].numel()) if matrix else spread
        return start + scale * tape.normal(site, part.shape)
    if norm or name.endswith("bias") or "adaLN_modulation" in name or "final_layer" in name:
        return start
    if not matrix or "time_embed" in name:
        return SPREAD * tape.normal(site, part.shape)
    area = part[0, 0].numel()
    bound = math.sqrt(6 / ((part.shape[0] + part.shape[1]) * area))
    return bound * (2 * tape.uniform(site, part.shape) - 1)
