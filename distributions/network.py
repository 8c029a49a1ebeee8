"""A small network as a head: an MLP with adaptive normalisation that serves every schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from distributions.heads import Prediction
from distributions.tape import Tape

Weights = Mapping[str, Tensor]
PREDICTS = ("noise", "velocity")
WAVES = 8
ROWS = 1024  # that many rows of hidden values stay in a core's cache


@dataclass(frozen=True, eq=False)
class NetworkHead:
    """A trained denoiser: residual blocks whose normalised values are shifted, scaled and gated by the condition and
    the noise level (adaptive layer norm with a zero start: Peebles and Xie 2212.09748; the heads of MAR, 2406.11838).

    The network reads x / h, h = hypot(signal, noise), and the angle = atan2(noise, signal), so a level is the same on
    every schedule. It ``predicts`` the ``noise`` eps, as MAR's heads do, or the ``velocity`` v = cos(angle) eps -
    sin(angle) x_0 (Salimans and Ho 2202.00512), from which clean and noise follow without a division at either end:
    clean = cos x / h - sin v, eps = sin x / h + cos v. Nothing is clipped.

    The variance is learned as a fraction u of the range of a variance-preserving chain; on another schedule the
    prediction's ``fraction`` is u / h^2: right, in the limit of small steps, where the signal is constant as well.

    ``weights`` as ``initial`` names them, all of one dtype, in which the network runs; what it returns is float64.
    Raises ValueError for another ``predicts``, and for ``noise`` at signal 0, where x says nothing of the clean value.
    """

    weights: Weights
    predicts: str = "noise"

    def __post_init__(self) -> None:
        if self.predicts not in PREDICTS:
            raise ValueError(f"predicts is {self.predicts!r}; choose one of {', '.join(PREDICTS)}")

    @property
    def dim(self) -> int:
        return self.weights["out.bias"].shape[0] // 2

    @property
    def null(self) -> Tensor:
        """Zeros: the centre of the circles on which conditions lie."""
        first = self.weights["in.condition"]
        return first.new_zeros(first.shape[0], dtype=torch.float64)

    def __call__(self, value: Tensor, signal: Tensor, noise: Tensor, condition: Tensor) -> Prediction:
        signal, noise = (torch.as_tensor(part, dtype=torch.float64, device=value.device) for part in (signal, noise))
        size = torch.hypot(signal, noise)
        scaled = value.double() / size
        told, variance = self.raw(scaled, torch.atan2(noise, signal), condition)
        cosine, sine = signal / size, noise / size
        if self.predicts == "velocity":
            clean, eps = cosine * scaled - sine * told, sine * scaled + cosine * told
        else:
            if bool(signal == 0):
                raise ValueError(
                    "at signal 0 the noise says nothing of the clean value; use a head that predicts velocity"
                )
            clean, eps = (scaled - sine * told) / cosine, told
        return Prediction(clean, eps, variance / size**2)

    def raw(self, scaled: Tensor, angle: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """What the network says, float64: the quantity it predicts and the fraction u, both (*batch, d)."""
        kind = self.weights["in.value"].dtype
        shape, level = scaled.shape, waves(angle).to(kind)
        told = condition.expand(*shape[:-1], condition.shape[-1])
        flat, told = (part.to(kind).reshape(shape[:-1].numel(), part.shape[-1]) for part in (scaled, told))
        starts = range(0, max(1, len(flat)), ROWS)
        parts = [forward(self.weights, flat[row : row + ROWS], told[row : row + ROWS], level) for row in starts]
        first, second = torch.cat(parts).double().reshape(*shape[:-1], 2 * shape[-1]).chunk(2, -1)
        return first, second

    def to(self, place: str | torch.device | torch.dtype) -> NetworkHead:
        """The head on another device, or in another dtype."""
        return NetworkHead({name: part.to(place) for name, part in self.weights.items()}, self.predicts)


def waves(angle: Tensor) -> Tensor:
    """What the network reads of a level (*, 2 WAVES): cos and sin of 2 k angle, k = 1..WAVES."""
    turned = 2 * angle.unsqueeze(-1) * torch.arange(1, WAVES + 1, device=angle.device)
    return torch.cat((turned.cos(), turned.sin()), -1)


def forward(weights: Weights, scaled: Tensor, condition: Tensor, level: Tensor) -> Tensor:
    """The network's output (n, 2 d) for values (n, d), conditions (n, c) and waves (2 WAVES,) or (n, 2 WAVES).

    A value is read with the sines and cosines of 2, 4, ... times itself, as many octaves as there are weights for: with
    none an MLP is slow to learn what changes over a short distance (Tancik et al. 2006.10739). Shift, scale and gate of
    all blocks are one matrix times the condition plus one times the waves; where a whole batch stands at one level the
    second is a single row, so a step costs little more than the blocks' own matrices.
    """
    width = weights["in.value"].shape[1]
    octaves = (weights["in.value"].shape[0] // scaled.shape[1] - 1) // 2
    turned = scaled.unsqueeze(-1) * 2.0 ** torch.arange(1, octaves + 1).to(scaled)
    read = torch.cat((scaled, turned.sin().flatten(1), turned.cos().flatten(1)), -1)
    hidden = torch.addmm(torch.addmm(weights["in.bias"], read, weights["in.value"]), condition, weights["in.condition"])
    at_level = level @ weights["modulation.level"] + weights["modulation.bias"]
    depth = at_level.shape[-1] // (3 * width)
    modulation = torch.addmm(at_level, condition, weights["modulation.condition"])
    parts = modulation.reshape(len(scaled), 3 * depth, width).unbind(1)
    for block in range(depth):
        shift, scale, gate = parts[3 * block : 3 * block + 3]
        normed = torch.addcmul(shift, functional.layer_norm(hidden, (width,), eps=1e-6), scale)
        inner = functional.silu(torch.addmm(weights[f"{block}.up.bias"], normed, weights[f"{block}.up"]))
        outer = torch.addmm(weights[f"{block}.down.bias"], inner, weights[f"{block}.down"])
        hidden = torch.addcmul(hidden, gate, outer)
    return torch.addmm(weights["out.bias"], functional.layer_norm(hidden, (width,), eps=1e-6), weights["out"])


def initial(tape: Tape, dim: int, condition: int, width: int, depth: int, octaves: int = 0) -> dict[str, Tensor]:
    """Untrained weights: normals of variance 1 / fan-in, biases N(0, 1), the output zero; a scale starts at one."""

    def normal(name: str, rows: int, columns: int, scale: float = 1.0) -> Tensor:
        return (tape.normal(f"initial.{name}", (rows, columns)) * scale / math.sqrt(rows)).float()

    bias = torch.zeros(depth, 3, width)
    bias[:, 1] = 1
    found = {
        "in.value": normal("in.value", dim * (1 + 2 * octaves), width),
        "in.condition": normal("in.condition", condition, width),
        "in.bias": normal("in.bias", 1, width)[0],
        "modulation.level": normal("modulation.level", 2 * WAVES, 3 * depth * width, 0.1),
        "modulation.condition": normal("modulation.condition", condition, 3 * depth * width, 0.1),
        "modulation.bias": bias.flatten(),
        "out": torch.zeros(width, 2 * dim),
        "out.bias": torch.zeros(2 * dim),
    }
    for block in range(depth):
        for name in (f"{block}.up", f"{block}.down"):
            found |= {name: normal(name, width, width), f"{name}.bias": normal(f"{name}.bias", 1, width)[0]}
    return found
