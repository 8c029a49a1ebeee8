"""The autoencoder: published tensors, and a small one against its arithmetic written out with functional operations."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from distributions.mar import draw, kl16
from distributions.mar.vae import SCALE, Vae, VaeShape
from distributions.tape import GeneratorTape

CLOSE = 1e-10
LISTED = Path(__file__).with_name("mar_tensors.txt").read_text().partition("[kl16: name, shape]\n")[2].splitlines()
SMALL = VaeShape(width=32, multipliers=(1, 1, 2), latent=4)


def test_names_shapes_order_and_counts_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = kl16()
    found = [f"{name} {','.join(map(str, part.shape))}" for name, part in model.state_dict().items()]
    assert found == LISTED and len(found) == 312
    assert sum(part.numel() for part in model.parameters()) == 66_456_019
    assert sum(part.numel() for part in model.encoder.parameters()) == 28_265_760
    assert sum(part.numel() for part in model.decoder.parameters()) == 38_188_931


def test_the_stride_is_sixteen_and_the_decoder_undoes_it() -> None:
    with torch.device("meta"):
        model = kl16()
        mean, spread = model.encode(torch.zeros(2, 3, 256, 256))
        assert mean.shape == spread.shape == (2, 16, 16, 16)
        assert model.image(torch.zeros(2, 256, 16)).shape == (2, 3, 256, 256)


def small() -> Vae:
    return draw(Vae(SMALL).double(), GeneratorTape(3), spread=0.8)


def norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    rows, channels, *_ = x.shape
    groups = x.reshape(rows, 32, -1)
    groups = (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    scale, shift = (w[f"{name}.{part}"].reshape(1, channels, 1, 1) for part in ("weight", "bias"))
    return groups.reshape(x.shape) * scale + shift


def swish(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def conv(x: Tensor, w: dict[str, Tensor], name: str, padding: int = 0, stride: int = 1) -> Tensor:
    return conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=stride, padding=padding)


def residual(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    h = conv(swish(norm(x, w, f"{name}.norm1")), w, f"{name}.conv1", 1)
    h = conv(swish(norm(h, w, f"{name}.norm2")), w, f"{name}.conv2", 1)
    return h + (conv(x, w, f"{name}.nin_shortcut") if f"{name}.nin_shortcut.weight" in w else x)


def attention(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    h = norm(x, w, f"{name}.norm")
    q, k, v = (conv(h, w, f"{name}.{part}").flatten(2) for part in "qkv")
    share = torch.einsum("bci,bcj->bij", q, k).mul(1 / math.sqrt(x.shape[1])).softmax(-1)
    return x + conv(torch.einsum("bij,bcj->bci", share, v).reshape(x.shape), w, f"{name}.proj_out")


def middle(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    return residual(attention(residual(x, w, f"{name}.block_1"), w, f"{name}.attn_1"), w, f"{name}.block_2")


def encoded(image: Tensor, w: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    x = conv(image, w, "encoder.conv_in", 1)
    for level in range(3):
        for block in range(2):
            x = residual(x, w, f"encoder.down.{level}.block.{block}")
            if level == 2:
                x = attention(x, w, f"encoder.down.{level}.attn.{block}")
        if level < 2:
            wide = torch.zeros(*x.shape[:2], x.shape[2] + 1, x.shape[3] + 1, dtype=x.dtype)
            wide[..., :-1, :-1] = x
            x = conv(wide, w, f"encoder.down.{level}.downsample.conv", stride=2)
    x = conv(swish(norm(middle(x, w, "encoder.mid"), w, "encoder.norm_out")), w, "encoder.conv_out", 1)
    x = conv(x, w, "quant_conv")
    return x[:, :4], torch.exp(x[:, 4:].clamp(-30, 20) / 2)


def decoded(latent: Tensor, w: dict[str, Tensor]) -> Tensor:
    x = middle(conv(conv(latent, w, "post_quant_conv"), w, "decoder.conv_in", 1), w, "decoder.mid")
    for level in (2, 1, 0):
        for block in range(3):
            x = residual(x, w, f"decoder.up.{level}.block.{block}")
        if level:
            x = conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), w, f"decoder.up.{level}.upsample.conv", 1)
    return conv(swish(norm(x, w, "decoder.norm_out")), w, "decoder.conv_out", 1)


def test_encoding_and_decoding_are_those_written_out_by_hand() -> None:
    model, tape = small(), GeneratorTape(4)
    w = dict(model.state_dict())
    image = tape.normal("image", (2, 3, 16, 12))
    for found, wanted in zip(model.encode(image), encoded(image, w), strict=True):
        assert found.shape == (2, 4, 4, 3) and (found - wanted).abs().max() < CLOSE
    latent = tape.normal("latent", (2, 4, 3, 5))
    assert (model.decode(latent) - decoded(latent, w)).abs().max() < CLOSE


def test_a_wild_log_variance_is_clamped() -> None:
    model = small()
    for value, spread in ((1000.0, math.exp(10)), (-1000.0, math.exp(-15))):
        with torch.no_grad():
            model.quant_conv.weight.zero_()
            model.quant_conv.bias.fill_(value)
        assert torch.allclose(model.encode(torch.zeros(1, 3, 16, 16).double())[1], torch.tensor(spread).double())


def test_tokens_are_latents_in_raster_order_drawn_from_the_tape() -> None:
    model, tape = small(), GeneratorTape(5)
    image = tape.normal("image", (2, 3, 16, 16))
    mean, spread = model.encode(image)
    latent = mean + spread * GeneratorTape(6).normal("latent", mean.shape)
    tokens = model.tokens(image, GeneratorTape(6))
    assert tokens.shape == (2, 16, 4)
    assert (tokens[1, 4 * 2 + 3] - SCALE * latent[1, :, 2, 3]).abs().max() < 1e-12
    assert (model.image(tokens) - decoded(latent, dict(model.state_dict()))).abs().max() < CLOSE
    with pytest.raises(ValueError, match="15 tokens are no square"):
        model.image(tokens[:, :15])
