"""A small causal transformer over the pixels of handwritten digits, with its trained weights.

The images are scikit-learn's digits: 8 x 8 pixels of 17 levels, ten classes (Alpaydin and Kaynak, UCI, CC BY 4.0). The
model is an Image GPT (Chen et al., ICML 2020) in small: pixels in raster order, each a token. A tenth of the training
images have no label, so that one network is the conditional and the unconditional model that guidance needs (Ho and
Salimans 2207.12598). ``python -m distributions.pixels`` trains it again.
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
from distributions.tape import GeneratorTape, Tape

WEIGHTS = Path(__file__).with_name("weights") / "pixels.safetensors"
SIDE, LEVELS, CLASSES = 8, 17, 10
WIDTH, LAYERS, HEADS = 64, 3, 4
EPSILON = 1e-5
Weights = Mapping[str, Tensor]
Cache = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class PixelTransformer(Painter):
    """The model of 64 tokens of 17 values. A condition is a class (rows,) or one for all; None is no class.

    The forward pass runs in the dtype of ``weights``, which ``trained`` gives in float64: so a token's law is the same
    to 1e-13 whatever the window it is asked in. There is no cache: a pass reads the whole image so far.
    """

    weights: Weights
    size: int = SIDE * SIDE
    vocab: int = LEVELS

    @staticmethod
    def trained(dtype: torch.dtype = torch.float64) -> PixelTransformer:
        """The model with the weights that ship with the package."""
        from safetensors.torch import load_file

        return PixelTransformer({name: part.to(dtype) for name, part in load_file(WEIGHTS).items()})

    def labels(self, rows: int, condition: Any) -> Tensor:
        """Raises ValueError for a class that is not 0 to 9."""
        label = torch.as_tensor(CLASSES if condition is None else condition).expand(rows).long()
        if condition is not None and not bool(((label >= 0) & (label < CLASSES)).all()):
            raise ValueError(f"a condition is a class 0 to {CLASSES - 1}, or None; got {condition}")
        return label

    def scores(self, tokens: Tensor, place: Tensor, label: Tensor) -> Tensor:
        """(B, K, V), from one forward pass up to the last place asked for."""
        hidden, _ = forward(self.weights, inputs(tokens, int(place.max()) + 1), label)
        asked = hidden.gather(1, place.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        return asked @ self.weights["head"].T


def inputs(tokens: Tensor, length: int) -> Tensor:
    """What the network reads at each of ``length`` places: the token before it, and at the first the extra value V."""
    return functional.pad(tokens[:, : length - 1], (1, 0), value=LEVELS)


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

    past = 0 if cache is None else cache[0][0].shape[2]
    batch, length = read.shape
    place = torch.arange(past, past + length)
    position = weights["row"][place // SIDE] + weights["column"][place % SIDE]
    hidden = dropped(weights["token"][read] + position + weights["label"][label].unsqueeze(1), "dropout.in")
    causal = place.unsqueeze(1) >= torch.arange(past + length)
    kept = []
    for layer in range(LAYERS):
        normed = functional.layer_norm(hidden, (WIDTH,), weights[f"{layer}.norm"], eps=EPSILON)
        ask, key, value = (
            part.reshape(batch, length, HEADS, -1).transpose(1, 2)
            for part in (normed @ weights[f"{layer}.attention"].T).chunk(3, -1)
        )
        if cache is not None:
            key, value = torch.cat([cache[layer][0], key], 2), torch.cat([cache[layer][1], value], 2)
        kept.append((key, value))
        mixed = functional.scaled_dot_product_attention(ask, key, value, attn_mask=causal)
        mixed = mixed.transpose(1, 2).reshape(batch, length, WIDTH)
        hidden = hidden + dropped(mixed @ weights[f"{layer}.project"].T, f"dropout.{layer}.attention")
        normed = functional.layer_norm(hidden, (WIDTH,), weights[f"{layer}.norm2"], eps=EPSILON)
        wide = functional.gelu(normed @ weights[f"{layer}.up"].T)
        hidden = hidden + dropped(wide @ weights[f"{layer}.down"].T, f"dropout.{layer}.mlp")
    return functional.layer_norm(hidden, (WIDTH,), weights["norm"], eps=EPSILON), kept


def initial(tape: Tape) -> dict[str, Tensor]:
    """Untrained weights: normals of variance 1 / fan-in, the blocks' last maps smaller (Radford et al. 2019)."""

    def normal(name: str, rows: int, columns: int, scale: float) -> Tensor:
        return (tape.normal(f"initial.{name}", (rows, columns)) * scale).float()

    narrow = WIDTH**-0.5
    last = narrow / math.sqrt(2 * LAYERS)
    found = {"norm": torch.ones(WIDTH), "head": normal("head", LEVELS, WIDTH, narrow)}
    for name, rows in (("token", LEVELS + 1), ("row", SIDE), ("column", SIDE), ("label", CLASSES + 1)):
        found[name] = normal(name, rows, WIDTH, 0.1)
    for layer in range(LAYERS):
        found |= {f"{layer}.norm": torch.ones(WIDTH), f"{layer}.norm2": torch.ones(WIDTH)}
        found[f"{layer}.attention"] = normal(f"{layer}.attention", 3 * WIDTH, WIDTH, narrow)
        found[f"{layer}.project"] = normal(f"{layer}.project", WIDTH, WIDTH, last)
        found[f"{layer}.up"] = normal(f"{layer}.up", 4 * WIDTH, WIDTH, narrow)
        found[f"{layer}.down"] = normal(f"{layer}.down", WIDTH, 4 * WIDTH, last / 2)
    return found


def digits() -> tuple[Tensor, Tensor, Tensor]:
    """All 1797 images as tokens (n, 64), their classes (n,), and which are held out (n,): every sixth.

    Raises ImportError where scikit-learn, which brings the images, is not installed.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    held_out = torch.arange(len(found.target)) % 6 == 0
    return torch.from_numpy(found.data).long(), torch.from_numpy(found.target).long(), held_out


def nats(weights: Weights, tokens: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy per token of each image (n,)."""
    hidden, _ = forward(weights, inputs(tokens, tokens.shape[1]), label)
    logits = hidden @ weights["head"].T
    return functional.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").mean(1)


def train(steps: int, tape: Tape, batch: int = 64, peak: float = 2e-3, rate: float = 0.15) -> dict[str, Tensor]:
    """Weights after ``steps`` of AdamW with a warm-up and a cosine decay, on the images not held out."""
    tokens, label, held_out = digits()
    tokens, label = tokens[~held_out], label[~held_out]
    weights = {name: part.requires_grad_() for name, part in initial(tape).items()}
    flat = [part for part in weights.values() if part.dim() == 1]
    deep = [part for part in weights.values() if part.dim() == 2]
    groups: list[dict[str, Any]] = [{"params": deep, "weight_decay": 0.1}, {"params": flat, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98))
    curve = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    for step in range(steps):
        mine = (tape.uniform("batch", (batch,)) * len(tokens)).long()
        nameless = tape.coin("unlabelled", torch.full((batch,), 0.1))
        given = torch.where(nameless, CLASSES, label[mine])
        hidden, _ = forward(weights, inputs(tokens[mine], SIDE * SIDE), given, dropout=(rate, tape))
        loss = functional.cross_entropy((hidden @ weights["head"].T).flatten(0, 1), tokens[mine].flatten())
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimiser.step()
        curve.step()
        if (step + 1) % 250 == 0:
            held = nats({name: part.detach() for name, part in weights.items()}, *held_out_images())
            print(f"step {step + 1}: trained on {loss.item():.4f}, held out {held.mean():.4f} nats a token", flush=True)
    return {name: part.detach() for name, part in weights.items()}


def held_out_images() -> tuple[Tensor, Tensor]:
    """The images (n, 64) that training does not see, and their classes."""
    tokens, label, held_out = digits()
    return tokens[held_out], label[held_out]


def main(steps: int = 3000, seed: int = 0, path: Path = WEIGHTS) -> None:
    """Train, and write the weights with what they reach on the images held out."""
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    weights = train(steps, GeneratorTape(seed))
    reached = float(nats(weights, *held_out_images()).mean())
    path.parent.mkdir(exist_ok=True)
    save_file(weights, path, {"held_out_nats": f"{reached:.4f}", "steps": str(steps), "seed": str(seed)})


if __name__ == "__main__":
    main()
