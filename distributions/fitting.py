"""Fitting weights to a loss: AdamW with a warm-up, averaged weights, and checkpoints from which it goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from distributions.tape import GeneratorTape
from distributions.whole import whole

Follow = Callable[[range], Iterable[int]]
Loss = Callable[[GeneratorTape], Tensor]
SECONDS = 20.0
"""Between two checkpoints; a run that is stopped loses no more."""
WARM = 100
"""Steps until the learning rate is at its peak."""


@dataclass(frozen=True)
class Fit:
    """How long and how fast: ``steps`` of AdamW, learning rate up to ``peak`` and down along a cosine to zero; what the
    ``average`` of the weights keeps in a step; ``decay`` of the matrices; the norm to which gradients are clipped.
    """

    steps: int
    peak: float
    average: float = 0.998
    decay: float = 0.0
    clip: float = 1.0


def fit(
    weights: Mapping[str, Tensor],
    loss: Loss,
    how: Fit,
    tape: GeneratorTape,
    follow: Follow = iter,
    checkpoint: Path | None = None,
) -> dict[str, Tensor]:
    """The averaged weights after ``how.steps`` steps; ``weights`` are trained in place.

    ``loss(tape)`` is a scalar that depends on ``weights``; all its draws come from ``tape``. ``follow`` is what the
    steps are counted through: a progress bar, if one is wanted. ``checkpoint``: a file written every 20 seconds and
    removed at the end; where it is there already, training goes on from it, and ends with the same bits as if it had
    never stopped. Raises ValueError for a checkpoint of other weights or steps.
    """
    for part in weights.values():
        part.requires_grad_()
    average = {name: part.detach().clone() for name, part in weights.items()}
    groups = [
        {"params": [part for part in weights.values() if part.ndim > 1], "weight_decay": how.decay},
        {"params": [part for part in weights.values() if part.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=how.peak, betas=(0.9, 0.98), weight_decay=0.0)
    curve = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / WARM) * (0.5 + 0.5 * math.cos(math.pi * step / how.steps))
    )
    run = _Run(weights, average, optimiser, curve, tape, how)
    done = run.load(checkpoint) if checkpoint is not None and checkpoint.exists() else 0
    saved = time.monotonic()
    for step in follow(range(done, how.steps)):
        optimiser.zero_grad()
        torch.autograd.backward(loss(tape))
        torch.nn.utils.clip_grad_norm_(list(weights.values()), how.clip)
        optimiser.step()
        curve.step()
        keep = min(how.average, (1 + step) / (10 + step))
        for name, part in average.items():
            part.lerp_(weights[name].detach(), 1 - keep)
        if checkpoint is not None and time.monotonic() > saved + SECONDS:
            run.save(checkpoint, step + 1)
            saved = time.monotonic()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return average


@dataclass(frozen=True, eq=False)
class _Run:
    """All that changes while weights are fitted."""

    weights: Mapping[str, Tensor]
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    curve: torch.optim.lr_scheduler.LambdaLR
    tape: GeneratorTape
    how: Fit

    def save(self, file: Path, step: int) -> None:
        """All that changes, in one file."""
        state = {
            "step": step,
            "steps": self.how.steps,
            "weights": {name: item.detach() for name, item in self.weights.items()},
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "curve": {"last_epoch": self.curve.last_epoch},
            "tape": self.tape.state,
        }
        with whole(file) as beside:
            torch.save(state, beside)

    def load(self, file: Path) -> int:
        found = torch.load(file, weights_only=True)
        shapes = {name: item.shape for name, item in self.weights.items()}
        if found["steps"] != self.how.steps or {n: i.shape for n, i in found["weights"].items()} != shapes:
            raise ValueError(f"{file} is a checkpoint of another training; remove it, or give the same size and steps")
        with torch.no_grad():
            for name, item in self.weights.items():
                item.copy_(found["weights"][name])
                self.average[name].copy_(found["average"][name])
        self.optimiser.load_state_dict(found["optimiser"])
        self.curve.last_epoch = found["curve"]["last_epoch"]
        self.tape.state = found["tape"]
        return int(found["step"])


def write(weights: Mapping[str, Tensor], file: Path, about: Mapping[str, object]) -> Path:
    """Weights in a safetensors file that everybody may read, with what there is to say ``about`` them."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(weights), file, {name: str(part) for name, part in about.items()})
    file.chmod(0o644)
    return file
