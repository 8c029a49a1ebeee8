"""What is measured: the models, the windows, and what is varied besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from distributions import pixels
from distributions.processing import Processed, Processing
from distributions.raster import Raster
from verify.work import Subject, Work

Cells = Mapping[str, Sequence[Work]]
"""By the model's name: ancestral sampling, then every rule at every window."""
Swept = Mapping[str, Sequence[tuple[float, Work]]]
"""By the setting's or the model's name: its values, each with what was measured there."""

SHARPNESS = (0.855, 1.68, 2.77, 4.39)
"""Of the grid model, flattest first; at 64 values their entropies are about 3.81, 3.00, 2.01 and 1.20 nats a token."""
WINDOWS = (2, 4, 8, 16, 32, 64)
SWEPT = 32
"""The window at which everything else is varied."""
FEWER = (8, SWEPT, 64)
"""The windows at which the rules with a planted defect are run."""
SETTINGS: Mapping[str, Sequence[float]] = {
    "temperature": (0.5, 0.7, 1.0, 1.4, 2.0),
    "top_k": (2, 4, 8, 17),
    "guidance": (0.0, 1.0, 2.0, 4.0),
}
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
FALSE_ALARM = 0.001
"""Of the scale gate, for all cells of one rule together (Bonferroni)."""
CHAINS = {"quick": 30, "thorough": 300}
"""Images of the grid a cell, and twice as many digits: a quarter of a minute for each rule, or ten times that."""


def grid(sharpness: float) -> Subject:
    """The random grid of 16 x 16 tokens of 64 values."""
    model = Raster.random(64, sharpness)
    return Subject(f"grid, sharpness {sharpness}", model, model.vocab, model.size)


def digits(chains: int, **settings: Any) -> Subject:
    """The trained transformer over digits of 8 x 8 pixels, one class after the other, processed as ``settings`` say."""
    model = pixels.trained(torch.float32)  # whose laws agree between windows to 1e-6: ample for a mean
    target = Processed(model, Processing(**settings))
    return Subject("trained digits", target, model.vocab, model.size, torch.arange(chains) % 10)


def names(cells: Cells) -> list[str]:
    """The rules, those of the catalogue first."""
    return list(dict.fromkeys(work.rule for works in cells.values() for work in works if work.rule != "ancestral"))


def exact(cells: Cells) -> list[str]:
    """The rules of the catalogue, all lossless."""
    return [name for name in names(cells) if not planted(name)]


def planted(rule: str) -> bool:
    """Whether a rule is one with a planted defect."""
    return rule.startswith("saboteurs/")


def of(works: Sequence[Work], rule: str) -> list[Work]:
    """One rule at every window."""
    return [work for work in works if work.rule == rule]


def at(works: Sequence[Work], rule: str, window: int) -> Work:
    """One rule at one window."""
    return next(work for work in of(works, rule) if work.window == window)


def windows(rule: str) -> tuple[int, ...]:
    """The windows at which a rule is run."""
    return FEWER if planted(rule) else WINDOWS
