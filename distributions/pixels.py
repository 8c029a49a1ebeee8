"""The pixels of handwritten digits as tokens, and the transformer over them that ships with the package.

The images are scikit-learn's digits: 8 x 8 pixels of 17 levels, ten classes (Alpaydin and Kaynak, UCI, CC BY 4.0).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from distributions.fitting import Fit, Follow, write
from distributions.tape import GeneratorTape
from distributions.transformer import Shape, TokenTransformer, nats, train

WEIGHTS = Path(__file__).with_name("weights") / "pixels.safetensors"
SIDE, LEVELS, CLASSES = 8, 17, 10
STEPS = 3000


def trained(dtype: torch.dtype = torch.float64) -> TokenTransformer:
    """The model of 64 tokens of 17 values that ships."""
    return TokenTransformer.load(WEIGHTS, dtype)


def digits() -> tuple[Tensor, Tensor, Tensor]:
    """All 1797 images as tokens (n, 64), their classes (n,), and which are held out (n,): every sixth.

    Raises ImportError where scikit-learn, which brings the images, is not installed.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    held_out = torch.arange(len(found.target)) % 6 == 0
    return torch.from_numpy(found.data).long(), torch.from_numpy(found.target).long(), held_out


def held_out_images() -> tuple[Tensor, Tensor]:
    """The images (n, 64) that training does not see, and their classes."""
    tokens, label, held_out = digits()
    return tokens[held_out], label[held_out]


def fitted(
    steps: int, tape: GeneratorTape, batch: int = 64, follow: Follow = iter, checkpoint: Path | None = None
) -> dict[str, Tensor]:
    """Weights after ``steps`` on the images not held out."""
    tokens, label, held_out = digits()
    shape, how = Shape(SIDE, LEVELS, CLASSES), Fit(steps, 2e-3, average=0.0, decay=0.1)
    seen = tokens[~held_out], label[~held_out]
    return train(*seen, shape, how, tape, batch=batch, follow=follow, checkpoint=checkpoint)


def make(seed: int = 0, path: Path = WEIGHTS, follow: Follow = iter) -> Path:
    """Train, and write the weights with what they reach on the images held out."""
    weights = fitted(STEPS, GeneratorTape(seed), follow=follow, checkpoint=path.with_suffix(".checkpoint"))
    reached = float(nats(weights, *held_out_images()).mean())
    about = {"command": f"specproof train pixels --seed {seed}", "steps": STEPS, "seed": seed}
    return write(weights, path, {**about, "held_out_nats": f"{reached:.4f}"})
