"""Training small heads on data whose law is known, and the trained ones that ship with the package.

Of every data set of ``datasets`` there are two heads: a target, and a drafter that is smaller and trained for less.
``specproof train NAME`` trains a pair again, to the last bit on the same processor and libraries.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from distributions.datasets import CONDITION, Data, datasets
from distributions.denoising import denoising_error, exact, losses, noised
from distributions.fitting import Fit, Follow, fit, write
from distributions.network import NetworkHead, forward, initial, waves
from distributions.tape import GeneratorTape

FOLDER = Path(__file__).with_name("weights")
ROLES = ("target", "drafter")


@dataclass(frozen=True)
class Recipe:
    """How a head is made: its size, and how long it is trained, ``steps`` of ``batch`` values.

    ``octaves``: of sines and cosines of the value; two of them halve a ring's excess loss, and raise that of data in 16
    dimensions by a third. ``peak``: the highest learning rate. ``average``: what the average of the weights
    keeps in a step.
    """

    width: int
    depth: int
    steps: int
    octaves: int = 0
    batch: int = 512
    peak: float = 5e-3
    average: float = 0.998


def recipe(dim: int, role: str) -> Recipe:
    """The recipe of the heads that ship, by the dimension of the data and the role."""
    octaves = 2 if dim <= 2 else 0
    if role == "target":
        return Recipe(128, 3, 4000, octaves)
    return Recipe(32, 1, 3000, octaves) if dim <= 2 else Recipe(64, 2, 1500, octaves)


@dataclass(frozen=True, eq=False)
class Trained:
    """A pair of heads, and the law of the data that both were trained on."""

    target: NetworkHead
    drafter: NetworkHead
    data: Data


def pretrained(name: str, predicts: str = "noise", dtype: torch.dtype = torch.float32) -> Trained:
    """The pair that ships for a data set. Raises ValueError, listing what there is, for another name."""
    from safetensors.torch import load_file

    files = [weights_of(name, role, predicts) for role in ROLES]
    if not all(file.exists() for file in files):
        known = {file.stem.removesuffix(".target") for file in FOLDER.glob("*.target.safetensors")}
        there = ", ".join(sorted(one for one in known if one.split(".")[0] in datasets()))
        raise ValueError(f"no trained pair for {name!r} that predicts {predicts}; there are {there}")
    target, drafter = (
        NetworkHead({key: part.to(dtype) for key, part in load_file(file).items()}, predicts) for file in files
    )
    return Trained(target, drafter, datasets()[name])


def weights_of(name: str, role: str, predicts: str = "noise", folder: Path = FOLDER) -> Path:
    """The file of one head."""
    return folder / f"{name}{'' if predicts == 'noise' else '.' + predicts}.{role}.safetensors"


def train(
    data: Data,
    how: Recipe,
    tape: GeneratorTape,
    predicts: str = "noise",
    follow: Follow = iter,
    checkpoint: Path | None = None,
) -> dict[str, Tensor]:
    """Averaged weights after ``how.steps`` from nothing; ``follow`` and ``checkpoint`` as in ``fit``."""
    dim = data(torch.zeros(CONDITION)).event_shape[0]
    weights = initial(tape, dim, CONDITION, how.width, how.depth, how.octaves)

    def loss(tape: GeneratorTape) -> Tensor:
        batch = noised(data, how.batch, tape)
        told = forward(weights, *(part.float() for part in (batch.value, batch.condition, waves(batch.angle))))
        # Chains of 25 to 100 steps.
        stride = 0.5 * math.pi / (25 * 4 ** tape.uniform("stride", (len(told),)))
        return torch.stack(losses(told, batch, predicts, stride)).sum()

    average = fit(weights, loss, Fit(how.steps, how.peak, how.average), tape, follow, checkpoint)
    # Half precision on disk; what ships is what was rounded.
    return {name: part.half().float() for name, part in average.items()}


def make(
    name: str, role: str, predicts: str = "noise", seed: int = 0, folder: Path = FOLDER, follow: Follow = iter
) -> Path:
    """Train one head of a data set by its recipe and write it, with how it was made and what it reached.

    Raises ValueError, listing what there is, for another ``name``.
    """
    if name not in datasets():
        raise ValueError(f"no data set {name!r}; there are {', '.join(datasets())}")
    data = datasets()[name]
    how = recipe(data(torch.zeros(CONDITION)).event_shape[0], role)
    file = weights_of(name, role, predicts, folder)
    weights = train(data, how, GeneratorTape(seed), predicts, follow, file.with_suffix(".checkpoint"))
    about = {
        "command": f"specproof train {name} --predicts {predicts} --seed {seed}",
        "data": name,
        "role": role,
        "predicts": predicts,
        "seed": seed,
        **asdict(how),
        "noise_error": f"{denoising_error(NetworkHead(weights, predicts), data):.5f}",
        "least_noise_error": f"{denoising_error(exact(data), data):.5f}",
    }
    return write({key: part.half() for key, part in weights.items()}, file, about)
