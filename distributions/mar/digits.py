"""Small MAR models of handwritten digits, masked and causal, that ship with the package: targets and drafters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from distributions import images
from distributions.fitting import Fit, Follow, fit, write
from distributions.images import Images
from distributions.mar import training
from distributions.mar.backbone import Mar
from distributions.mar.causal_network import CausalMar
from distributions.mar.initial import draw, lay_out
from distributions.mar.loading import load
from distributions.mar.loss import diffusion_loss
from distributions.mar.shapes import Shape
from distributions.tape import GeneratorTape

FOLDER = Path(__file__).parents[1] / "weights"
KINDS: Mapping[str, type[Mar] | type[CausalMar]] = {"mar": Mar, "causal": CausalMar}
ROLES = ("target", "drafter")
DATA = ("mnist", "digits")
REPEATS = 2
"""Levels of noise for every token of a batch of the causal models; a masked one has MAR's four."""
READER = "reader"
"""Of the condition, while a masked model is trained; not kept."""


@dataclass(frozen=True)
class Recipe:
    """The size of a model, and the ``steps`` of ``batch`` images that it is trained for."""

    shape: Shape
    steps: int
    batch: int
    peak: float


def recipe(kind: str, data: str, role: str) -> Recipe:
    """The recipe of a model that ships. Raises ValueError for another name of any of the three."""
    for name, known in ((kind, tuple(KINDS)), (data, DATA), (role, ROLES)):
        if name not in known:
            raise ValueError(f"there is no {name!r}; choose one of {', '.join(known)}")
    large = Shape(width=96, depth=3, heads=4, head_depth=3, head_width=128, tokens=49, classes=10, buffer=4)
    small = replace(large, width=48, depth=2, head_depth=2, head_width=64)
    shape = large if role == "target" else small
    if kind == "causal" and role == "target":
        shape = replace(shape, depth=4)
    if data == "digits":
        shape = replace(shape, tokens=16, dim=4, width=64 if role == "target" else 32, head_width=64)
    if kind == "mar":
        return Recipe(shape, {"target": 5000, "drafter": 2500}[role], 24, 2e-3)
    return Recipe(shape, {"target": 1600, "drafter": 800}[role], 48, 1.5e-3)


def file_of(kind: str, data: str, role: str, folder: Path = FOLDER) -> Path:
    """The weights of a model."""
    return folder / f"{data}.{kind}.{role}.safetensors"


def trained(kind: str, data: str, role: str = "target", dtype: torch.dtype = torch.float32) -> Mar | CausalMar:
    """The model that ships."""
    return load(KINDS[kind](recipe(kind, data, role).shape).to(dtype), file_of(kind, data, role))


def loss(
    model: Mar | CausalMar, tokens: Tensor, label: Tensor, tape: GeneratorTape, reader: Tensor | None = None
) -> Tensor:
    """MAR's loss; for the causal model the same of all tokens of an image, each given those before it. No dropout.

    Every number of masked tokens is as likely as any other, so that the last steps of sampling, with few of them, are
    learned as well as the first; MAR's rates are never below .7.
    """
    if isinstance(model, Mar):
        masked = 1 + int(tape.uniform("masked", (1,)) * tokens.shape[1])
        return training.loss(model, tokens, label, tape, rate=0.0, masked=masked, reader=reader)
    told = model.whole(tokens, training.nameless(tape, label))
    return diffusion_loss(model.head, told.flatten(0, 1), tokens.flatten(0, 1), tape, REPEATS)


def make(
    kind: str,
    data: str,
    role: str,
    seed: int = 0,
    folder: Path = FOLDER,
    follow: Follow = iter,
    steps: int | None = None,
) -> Path:
    """Train one model by its recipe, or for other ``steps``, and write it, with how it was made and its loss on images
    held out, every sixth.
    """
    how, file = recipe(kind, data, role), file_of(kind, data, role, folder)
    steps = how.steps if steps is None else steps
    seen, unseen = images.held_out(getattr(images, data)())
    model = draw(KINDS[kind](how.shape), GeneratorTape(seed))
    weights: dict[str, Tensor] = dict(model.named_parameters())
    if isinstance(model, Mar):
        lay_out(model)
        weights[READER] = torch.zeros(how.shape.width, how.shape.dim)

    def on_batch(tape: GeneratorTape) -> Tensor:
        tokens, label = seen.batch(how.batch, tape)
        return loss(model, tokens.float(), label, tape, weights.get(READER))

    plan = Fit(steps, how.peak, 0.998, decay=0.02)
    average = fit(weights, on_batch, plan, GeneratorTape(seed + 1), follow, file.with_suffix(".checkpoint"))
    kept = {name: part.half() for name, part in average.items() if name != READER}
    reached = loss_of(kind, how.shape, kept, unseen)
    about = {
        "command": f"specproof train {data}.{kind} --seed {seed}",
        "seed": seed,
        "steps": steps,
        "batch": how.batch,
        "held_out_loss": f"{reached:.4f}",
    }
    return write(kept, file, about)


@torch.no_grad()
def loss_of(kind: str, shape: Shape, weights: Mapping[str, Tensor], unseen: Images, batches: int = 8) -> float:
    """The mean loss of weights on images held out, on draws that are the same for all models."""
    model = KINDS[kind](shape)
    model.load_state_dict({name: part.float() for name, part in weights.items()})
    tape, total = GeneratorTape(12_345), 0.0
    for _ in range(batches):
        tokens, label = unseen.batch(64, tape)
        total += float(loss(model, tokens.float(), label, tape))
    return total / batches
