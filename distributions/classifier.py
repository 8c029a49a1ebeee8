"""A small convolutional classifier of 28 x 28 digits: whose features measure how good samples are.

Trained here on the same 5000 images as the models, less every sixth. Distances in its features are no FID, which is a
distance in the features of one particular Inception network, and compare with nothing outside this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from distributions.fitting import Fit, Follow, fit, write
from distributions.images import BLUR, held_out, mnist
from distributions.tape import GeneratorTape, Tape

WEIGHTS = Path(__file__).with_name("weights") / "classifier.safetensors"
FEATURES, CLASSES, STEPS = 64, 10, 600


@dataclass(frozen=True, eq=False)
class Classifier:
    """Features (n, 64) and logits (n, 10) of images (n, 28, 28) of standardised pixels."""

    weights: Mapping[str, Tensor]

    @staticmethod
    def trained() -> Classifier:
        """The one that ships."""
        from safetensors.torch import load_file

        return Classifier({name: part.float() for name, part in load_file(WEIGHTS).items()})

    def features(self, pixels: Tensor) -> Tensor:
        """Two strided convolutions and a layer, all with SiLU."""
        hidden = pixels.float().unsqueeze(1)
        for name in ("first", "second"):
            hidden = functional.silu(functional.conv2d(hidden, self.weights[name], self.weights[name + ".bias"], 2, 2))
        return functional.silu(hidden.flatten(1) @ self.weights["flat"].T + self.weights["flat.bias"])

    def logits(self, pixels: Tensor) -> Tensor:
        """Unnormalised log-probabilities of the classes."""
        return self.features(pixels) @ self.weights["out"].T


def initial(tape: Tape) -> dict[str, Tensor]:
    """Untrained weights: normals of variance 2 / fan-in, biases zero."""
    shapes = {"first": (16, 1, 5, 5), "second": (32, 16, 5, 5), "flat": (FEATURES, 32 * 7 * 7), "out": (CLASSES, 64)}
    found = {}
    for name, shape in shapes.items():
        fan = torch.Size(shape[1:]).numel()
        found[name] = (tape.normal(f"initial.{name}", shape) * (2 / fan) ** 0.5).float()
        if name != "out":
            found[f"{name}.bias"] = torch.zeros(shape[0])
    return found


def make(seed: int = 0, path: Path = WEIGHTS, follow: Follow = iter) -> Path:
    """Train, and write the weights with the share of the images held out that they get right."""
    seen, unseen = held_out(mnist())
    weights = initial(GeneratorTape(seed))
    network = Classifier(weights)

    def loss(tape: GeneratorTape) -> Tensor:
        mine = (tape.uniform("batch", (128,)) * len(seen)).long()
        moved = _moved(seen.pixels[mine], tape)
        pixels = moved + BLUR * tape.normal("blur", moved.shape)
        return functional.cross_entropy(network.logits(pixels), seen.label[mine])

    found = fit(
        weights, loss, Fit(STEPS, 3e-3, 0.98, 1e-2), GeneratorTape(seed + 1), follow, path.with_suffix(".checkpoint")
    )
    kept = {name: part.half() for name, part in found.items()}
    told = Classifier({name: part.float() for name, part in kept.items()}).logits(unseen.pixels).argmax(-1)
    right = float((told == unseen.label).double().mean())
    about = {"command": f"specproof train classifier --seed {seed}", "steps": STEPS, "seed": seed}
    return write(kept, path, {**about, "held_out_accuracy": f"{right:.4f}"})


def _moved(pixels: Tensor, tape: Tape) -> Tensor:
    """Images shifted by up to two pixels each way, one shift for all."""
    down, across = ((tape.uniform("shift", (2,)) * 5).long() - 2).tolist()
    return pixels.roll((down, across), (-2, -1))
