"""Image models of random weights: a target and a drafter near it, small enough for tests of what is done with them."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from distributions.mar import CausalMar, Mar, Shape, draw
from distributions.mar.digits import KINDS
from distributions.tape import GeneratorTape

SMALL = Shape(width=16, depth=1, heads=2, head_depth=1, head_width=24, tokens=16, dim=4, classes=10, buffer=2)


@torch.no_grad()
def random_model(kind: str, data: str, role: str) -> Mar | CausalMar:
    """In place of ``distributions.mar.digits.trained``."""
    shape = SMALL if data == "digits" else replace(SMALL, tokens=49, dim=16)
    target = draw(KINDS[kind](shape).double(), GeneratorTape(3), spread=0.3)
    if role == "target":
        return target
    drafter, tape = copy.deepcopy(target), GeneratorTape(4)
    for name, part in drafter.named_parameters():
        part.add_(tape.normal(name, part.shape), alpha=0.003)
    return drafter
