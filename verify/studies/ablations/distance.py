"""How far apart the tokens of two chains are, that share their noise or do not."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from distributions.datasets import conditions
from distributions.path import PathLaw
from distributions.tape import GeneratorTape
from distributions.training import Trained
from verify.studies.ablations.cells import Setting, heads


@dataclass(frozen=True)
class Apart:
    """Mean distance of drafter's and target's tokens, with ``own`` and with ``shared`` noise, beside the ``deviation``
    of the target's last step.
    """

    data: str
    own: float
    shared: float
    deviation: float

    def forgiven(self, temperature: float) -> float:
        """What a test of equal volumes passes at the shared distance, the draft being its own mean: exp(-distance^2 /
        2 (temperature deviation)^2), as the released test does.
        """
        return math.exp(-0.5 * (self.shared / (temperature * self.deviation)) ** 2)


def distances(setting: Setting, rows: int, seed: int, pair: Trained | None = None) -> Apart:
    """Of tokens under conditions that are uniform on the circles; the last steps without noise, as released."""
    pair = heads(setting.data) if pair is None else pair
    condition = conditions(GeneratorTape(seed), rows)
    laws = [setting.model(head).given(condition) for head in (pair.drafter, pair.target)]
    quiet = [replace(law, last_noise=False) for law in laws if isinstance(law, PathLaw)]
    draft, shared = (law.sample(GeneratorTape(seed + 1), "path") for law in quiet)
    own = quiet[1].sample(GeneratorTape(seed + 2), "path")
    gaps = [torch.linalg.vector_norm((path - draft)[..., -1, :], dim=-1).mean() for path in (own, shared)]
    last = quiet[1].kernel.step(1, shared[..., -2, :])
    deviation = last.scale.mean()  # type: ignore[attr-defined]
    return Apart(setting.data, float(gaps[0]), float(gaps[1]), float(deviation))
