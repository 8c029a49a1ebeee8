"""How good samples of images are: two scores of a classifier's features and probabilities."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet(first: Tensor, second: Tensor) -> float:
    """The squared Frechet distance of the normal laws with the moments of two sets of features (n, f) and (m, f).

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)); Dowson and Landau (Journal of Multivariate Analysis 12, 1982). The trace
    of the root is the sum of the roots of the eigenvalues of C C', which are real and not negative. It grows with the
    error of the moments: compare sets of equal size. Raises ValueError for fewer than two rows.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("a covariance needs two rows or more; give more features")
    one, other = first.double(), second.double()
    covariance = [part.T.cov().reshape(part.shape[1], part.shape[1]) for part in (one, other)]
    shared = torch.linalg.eigvals(covariance[0] @ covariance[1]).real.clamp(min=0).sqrt().sum()
    apart = (one.mean(0) - other.mean(0)).square().sum()
    return float(apart + covariance[0].trace() + covariance[1].trace() - 2 * shared)


def inception_score(logits: Tensor) -> float:
    """exp of the mean divergence of a row's class probabilities from their mean; from 1 to the number of classes.

    Salimans et al. (NeurIPS 2016), with the classifier that gave ``logits`` (n, classes) in place of Inception.
    """
    log = logits.double().log_softmax(-1)
    mean = log.exp().mean(0).clamp(min=1e-300).log()
    return float((log.exp() * (log - mean)).sum(-1).mean().exp())
