"""The tests compared: the two-sample checks here, and those of scipy, of hyppo and of the textbook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from scipy.stats import cramervonmises_2samp, ks_2samp
from torch import Tensor

from distributions.tape import GeneratorTape
from verify.checks.classifier import Classifier
from verify.checks.fourier_witness import FourierWitness, median_distance
from verify.checks.mmd import MedianBandwidth
from verify.checks.quadratic_witness import QuadraticWitness
from verify.checks.sliced import Sliced
from verify.statistics.learned import Learner

BOOTSTRAPS = 1_999
Test = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Subject:
    """A test from two samples (n, d) to a p-value; ``most`` pairs fit into its memory."""

    test: Test
    ours: bool = False
    most: int = 1 << 40


def subjects() -> tuple[Mapping[str, Subject], str]:
    """The tests by name, and a sentence for what is not installed."""
    found = {
        "sliced": Subject(_checked(Sliced(), 16), ours=True),
        "quadratic witness": Subject(_checked(QuadraticWitness(), 2), ours=True),
        "Fourier witness": Subject(_checked(FourierWitness(), 2), ours=True),
        "MMD, Fourier": Subject(_checked(MedianBandwidth(), 16), ours=True),
        "scipy ks_2samp": Subject(_columns(lambda x, y: float(ks_2samp(x, y).pvalue))),
        "scipy cramervonmises": Subject(_columns(lambda x, y: float(cramervonmises_2samp(x, y).pvalue))),
        "MMD, wild bootstrap": Subject(wild_bootstrap, most=8192),
    }
    absent = []
    if find_spec("sklearn"):
        found["classifier"] = Subject(_checked(Classifier(), 2), ours=True)
    else:
        absent.append("The classifier is left out: scikit-learn is not installed.")
    if find_spec("hyppo"):
        found |= {"hyppo MMD": Subject(_hyppo("MMD"), most=8192), "hyppo Energy": Subject(_hyppo("Energy"), most=8192)}
    else:
        absent.append("hyppo is left out: it is not installed.")
    return found, " ".join(absent)


def _checked(learner: Learner, share: int) -> Test:
    """A check learned on one pair in ``share`` and counted on the others."""

    def test(x: Tensor, y: Tensor) -> float:
        pilot, tape = max(128, len(x) // share), GeneratorTape()
        check = learner.fit(x[:pilot], y[:pilot], tape)
        found = check(x[pilot:], y[pilot:], 1e-3, tape).p_value
        return 1.0 if found is None else found

    return test


def _columns(test: Callable[[np.ndarray, np.ndarray], float]) -> Test:
    """A test on the line, Bonferroni over the columns."""

    def every(x: Tensor, y: Tensor) -> float:
        width = x.shape[1]
        return min(1.0, width * min(test(x[:, at].numpy(), y[:, at].numpy()) for at in range(width)))

    return every


def _hyppo(name: str) -> Test:
    """hyppo's test with its fast chi-square p-value (Shen, Panda and Vogelstein 2022): permutations would multiply the
    time by their number.
    """

    def test(x: Tensor, y: Tensor) -> float:
        from hyppo import ksample

        return float(getattr(ksample, name)().test(x.numpy(), y.numpy(), workers=1, auto=True)[1])

    return test


def wild_bootstrap(x: Tensor, y: Tensor) -> float:
    """The quadratic MMD with a Gaussian kernel of the median distance, 1999 draws of signs on its pairs.

    With h_ij = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j) the statistic is the sum of h over i != j, and its
    draws have h_ij times two signs (Fromont et al., COLT 2012), exact as pairs may be exchanged.
    """
    few = torch.cat((x[:256], y[:256]))
    width = 2 * median_distance(few) ** 2
    h = sum(sign * _kernel(a, b, width) for a, b, sign in ((x, x, 1), (y, y, 1), (x, y, -1), (y, x, -1)))
    assert isinstance(h, Tensor)
    h.fill_diagonal_(0.0)
    signs = GeneratorTape().uniform("signs", (BOOTSTRAPS, len(x))).sub_(0.5).sign_()
    drawn = ((signs @ h) * signs).sum(-1)
    return (1 + int((drawn >= h.sum()).sum())) / (1 + BOOTSTRAPS)


def _kernel(a: Tensor, b: Tensor, width: float) -> Tensor:
    return torch.cdist(a, b).square_().div_(-width).exp_()
