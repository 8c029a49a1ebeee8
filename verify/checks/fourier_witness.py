"""Two samples through a smooth function learned on a pilot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.law import Law
from distributions.tape import GeneratorTape, Tape
from verify.checks.quadratic_witness import discriminant, standard
from verify.records import CheckClaim
from verify.statistics.held_out import CHUNK, HeldOut
from verify.statistics.learned import Learned, Learner
from verify.statistics.pairs import pilot, typical


@dataclass(frozen=True, eq=False)
class Waves(Learned):
    """f(x) = cos(z W) . a + sin(z W) . b, with z = (x - ``centre``) / ``scale``, ``waves`` W (d, k), ``weights`` (2 k)
    those of the cosines and then of the sines.
    """

    centre: Tensor
    scale: Tensor
    waves: Tensor
    weights: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        phases = standard(rows, self.centre, self.scale) @ self.waves
        return phases.cos() @ self.weights[: phases.shape[1]] + phases.sin() @ self.weights[phases.shape[1] :]


def features(phases: Tensor) -> Tensor:
    """Cosines and sines (n, 2 k) of phases (n, k)."""
    return torch.cat((phases.cos(), phases.sin()), -1)


@dataclass(frozen=True, eq=False)
class FourierDifference(HeldOut):
    """The held-out test of a sum of waves."""

    name: ClassVar[str] = "fourier_witness"
    claim: ClassVar[CheckClaim] = CheckClaim(
        "exact",
        against="smooth changes at the scale of the typical distance: shifts, spreads, contamination, dependence",
        blind_to="changes much finer than the typical distance; small ones, if the pilot has few rows for each feature",
    )


@dataclass(frozen=True)
class FourierWitness(Learner):
    """Fisher's linear discriminant in random Fourier features (Rahimi and Recht 2007) of the standardised coordinates.

    Frequencies are Gaussian, of a bandwidth ``stretch`` times the pilot's median distance; they come from ``seed``. The
    weights are those of the largest studentised mean, as in ``quadratic_witness``: whitening the features lets faint
    differences be seen beside features of large variance.
    """

    frequencies: int = 192
    stretch: float = 1.0
    seed: int = 0

    def fit(self, sample: Tensor, truth: Tensor | Law, tape: Tape) -> FourierDifference:
        first, second = pilot(sample, truth, tape, 16)
        centre, scale = typical(torch.cat((first[: 1 << 13], second[: 1 << 13])))
        few = standard(torch.cat((first[:512], second[:512])), centre, scale)
        bandwidth = self.stretch * median_distance(few)
        waves = GeneratorTape(self.seed).normal("fourier_witness.waves", (len(centre), self.frequencies)) / bandwidth
        units = (torch.split(standard(rows, centre, scale), CHUNK) for rows in (first, second))
        apart = ((features(x @ waves) - features(y @ waves)).float() for x, y in zip(*units, strict=True))
        score = Waves(centre, scale, waves, discriminant(apart, 2 * self.frequencies))
        return FourierDifference.after(score, first, second)


def median_distance(rows: Tensor) -> float:
    """The median of the distances between different rows; 1 where all are equal."""
    distance = torch.pdist(rows)
    distance = distance[distance > 0]
    return float(distance.median()) if len(distance) else 1.0
