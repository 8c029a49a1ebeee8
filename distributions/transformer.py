"""A small causal transformer over the tokens of an image: the network, its law as a model, and its training.

An Image GPT (Chen et al., ICML 2020) in small: tokens in raster order. A tenth of the training images have no label, so
that one network is the conditional and the unconditional model that guidance needs (Ho and Salimans 2207.12598).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from distributions.canvas import Painter
from distributions.fitting import Fit, Follow, fit
from distributions.tape import GeneratorTape, Tape

HEADS = 4
EPSILON = 1e-5
NAMELESS = 0.1
Weights = Mapping[str, Tensor]
Cache = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Shape:
    """Images of ``side`` x ``side`` tokens of ``vocab`` values, in ``classes``; a network's ``width``, ``layers``."""

    side: int
    vocab: int
    classes: int = 10
    width: int = 64
    layers: int = 3

    @staticmethod
    def of(weights: Weights) -> Shape:
        """That which weights have."""
        vocab, width = weights["head"].shape
        layers = sum(name.endswith(".attention") for name in weights)
        return Shape(len(weights["row"]), vocab, len(weights["label"]) - 1, width, layers)


@dataclass(frozen=True, eq=False)
class TokenTransformer(Painter):
    """The model. A condition is a class (rows,) or one for all; None is no class.

    The forward pass runs in the dtype of ``weights``: in float64 a token's law is the same to 1e-13 whatever the window
    it is asked in. There is no cache: a pass reads the whole image so far.
    """

    weights: Weights

    @staticmethod
    def load(file: Path, dtype: torch.dtype = torch.float64) -> TokenTransformer:
        """The model with the weights of a safetensors file."""
        from safetensors.torch import load_file

        return TokenTransformer({name: part.to(dtype) for name, part in load_file(file).items()})

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.weights["row"]) ** 2

    @property
    def vocab(self) -> int:  # type: ignore[override]
        return len(self.weights["head"])

    def labels(self, rows: int, condition: Any) -> Tensor:
        """Raises ValueError for a class that there is not."""
        classes = len(self.weights["label"]) - 1
        label = torch.as_tensor(classes if condition is None else condition).expand(rows).long()
        if condition is not None and not bool(((label >= 0) & (label < classes)).all()):
            raise ValueError(f"a condition is a class 0 to {classes - 1}, or None; got {condition}")
        return label

    def scores(self, tokens: Tensor, place: Tensor, label: Tensor) -> Tensor:
        """(B, K, V), from one forward pass up to the last place asked for."""
        hidden, _ = forward(self.weights, inputs(tokens, int(place.max()) + 1, self.vocab), label)
        asked = hidden.gather(1, place.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        return asked @ self.weights["head"].T


def inputs(tokens: Tensor, length: int, vocab: int) -> Tensor:
    """What the network reads at each of ``length`` places: the token before it, and at the first the extra value V."""
    return functional.pad(tokens[:, : length - 1], (1, 0), value=vocab)


def forward(
    weights: Weights, read: Tensor, label: Tensor, cache: Cache | None = None, dropout: tuple[float, Tape] | None = None
) -> tuple[Tensor, Cache]:
    """The last layer (B, L, width) at L consecutive places, and the keys and values up to them, layer by layer.

    ``read`` (B, L) as ``inputs`` gives it, from the place on where ``cache`` ends. Pre-norm blocks without biases
    (Vaswani et al. 2017; Radford et al. 2019). ``dropout``: its rate, and the tape it is drawn from.
    """

    def dropped(part: Tensor, site: str) -> Tensor:
        if dropout is None:
            return part
        rate, tape = dropout
        return part * tape.coin(site, torch.full(part.shape, 1 - rate)) / (1 - rate)

    shape = Shape.of(weights)
    past = 0 if cache is None else cache[0][0].shape[2]
    batch, length = read.shape
    place = torch.arange(past, past + length)
    position = weights["row"][place // shape.side] + weights["column"][place % shape.side]
    hidden = dropped(weights["token"][read] + position + weights["label"][label].unsqueeze(1), "dropout.in")
    causal = place.unsqueeze(1) >= torch.arange(past + length)
    kept = []
    for layer in range(shape.layers):
        normed = functional.layer_norm(hidden, (shape.width,), weights[f"{layer}.norm"], eps=EPSILON)
        ask, key, value = (
            part.reshape(batch, length, HEADS, -1).transpose(1, 2)
            for part in (normed @ weights[f"{layer}.attention"].T).chunk(3, -1)
        )
        if cache is not None:
            key, value = torch.cat([cache[layer][0], key], 2), torch.cat([cache[layer][1], value], 2)
        kept.append((key, value))
        mixed = functional.scaled_dot_product_attention(ask, key, value, attn_mask=causal)
        mixed = mixed.transpose(1, 2).reshape(batch, length, shape.width)
        hidden = hidden + dropped(mixed @ weights[f"{layer}.project"].T, f"dropout.{layer}.attention")
        normed = functional.layer_norm(hidden, (shape.width,), weights[f"{layer}.norm2"], eps=EPSILON)
        wide = functional.gelu(normed @ weights[f"{layer}.up"].T)
        hidden = hidden + dropped(wide @ weights[f"{layer}.down"].T, f"dropout.{layer}.mlp")
    return functional.layer_norm(hidden, (shape.width,), weights["norm"], eps=EPSILON), kept


def initial(tape: Tape, shape: Shape) -> dict[str, Tensor]:
    """Untrained weights: normals of variance 1 / fan-in, the blocks' last maps smaller (Radford et al. 2019)."""

    def normal(name: str, rows: int, columns: int, scale: float) -> Tensor:
        return (tape.normal(f"initial.{name}", (rows, columns)) * scale).float()

    width = shape.width
    narrow = width**-0.5
    last = narrow / math.sqrt(2 * shape.layers)
    found = {"norm": torch.ones(width), "head": normal("head", shape.vocab, width, narrow)}
    for name, rows in (
        ("token", shape.vocab + 1),
        ("row", shape.side),
        ("column", shape.side),
        ("label", shape.classes + 1),
    ):
        found[name] = normal(name, rows, width, 0.1)
    for layer in range(shape.layers):
        found |= {f"{layer}.norm": torch.ones(width), f"{layer}.norm2": torch.ones(width)}
        found[f"{layer}.attention"] = normal(f"{layer}.attention", 3 * width, width, narrow)
        found[f"{layer}.project"] = normal(f"{layer}.project", width, width, last)
        found[f"{layer}.up"] = normal(f"{layer}.up", 4 * width, width, narrow)
        found[f"{layer}.down"] = normal(f"{layer}.down", width, 4 * width, last / 2)
    return found


def nats(weights: Weights, tokens: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy per token of each image (n,)."""
    hidden, _ = forward(weights, inputs(tokens, tokens.shape[1], len(weights["head"])), label)
    logits = hidden @ weights["head"].T
    return functional.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").mean(1)


def train(
    tokens: Tensor,
    label: Tensor,
    shape: Shape,
    how: Fit,
    tape: GeneratorTape,
    *,
    batch: int = 64,
    rate: float = 0.15,
    follow: Follow = iter,
    checkpoint: Path | None = None,
) -> dict[str, Tensor]:
    """Weights fitted to images ``tokens`` (n, T) of classes ``label`` (n,), with dropout at a ``rate``."""
    weights = initial(tape, shape)

    def loss(tape: GeneratorTape) -> Tensor:
        mine = (tape.uniform("batch", (batch,)) * len(tokens)).long()
        nameless = tape.coin("unlabelled", torch.full((batch,), NAMELESS))
        given = torch.where(nameless, shape.classes, label[mine])
        read = inputs(tokens[mine], tokens.shape[1], shape.vocab)
        hidden, _ = forward(weights, read, given, dropout=(rate, tape))
        return functional.cross_entropy((hidden @ weights["head"].T).flatten(0, 1), tokens[mine].flatten())

    return fit(weights, loss, how, tape, follow, checkpoint)
