"""Dependence between the rows of one call: a shared coin, shared noise, one row copied to another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.stats import binom, chi2_contingency, f_oneway, norm
from torch import Tensor

from distributions.law import Law
from distributions.tape import Tape
from verify.checks.support import resolution
from verify.checks.transform import uniforms
from verify.records import CheckClaim, Finding

SMALL_CALL = 64
"""Calls of at most this many rows are searched for repeated rows, where chance gives none."""


def call_sums(features: Tensor, call: Tensor) -> Tensor:
    """The sum of ``features`` (n, m) over each call, divided by the root of its rows: (calls, m), variance 1."""
    size = torch.bincount(call).double()
    total = torch.zeros(len(size), features.shape[-1]).double().index_add_(0, call, features)
    return total / size.sqrt().unsqueeze(-1)


@dataclass(frozen=True, eq=False)
class RowDependence:
    """Four tests that the rows of a call are independent, Bonferroni over all; a wrong law of single rows is no reason
    for them to reject. ``call`` (n,): the call of each row, in order from 0; ``accepted`` (n,): output equals draft.

    On the columns of the probability integral transform, centred on their own means: *neighbours*, the lag-one
    correlation within calls, normal; *levels*, one-way analysis of variance between the large calls. *Coins*,
    homogeneity of the accepted fraction of the large calls (Pearson's chi-square). *Copies*, small calls with a row
    that occurs twice and in no other call, against a binomial law whose success probability is the chance of that in
    single precision. Large calls have at least half the rows of the largest.
    """

    call: Tensor
    accepted: Tensor | None = None
    claim: ClassVar[CheckClaim] = CheckClaim(
        "asymptotic",
        against="a coin or a residual shared by the rows of a batch, rows copied to others",
        blind_to="dependence between calls, and between distant rows where it leaves their mean alone",
    )

    def __call__(self, sample: Tensor, truth: Law, alpha: float, tape: Tape) -> Finding:
        columns = uniforms(sample, truth, tape)
        n, width = columns.shape
        centred = columns - columns.mean(0)
        size = torch.bincount(self.call)
        large = (2 * size >= size.max()) & (size >= 8)
        tests = {
            "neighbouring rows": _neighbours(centred, self.call),
            "levels of whole calls": _levels(columns, self.call, large),
            "acceptance of whole calls": _coins(self.accepted, self.call, large),
            "rows copied within a call": _copies(sample, self.call, size),
        }
        worst = min(tests, key=lambda name: tests[name])
        return Finding(
            verifier="",
            scenario="",
            check="row_dependence",
            statistic=-math.log10(max(tests[worst], 1e-300)),
            p_value=min(1.0, len(tests) * tests[worst]),
            alpha=alpha,
            n=n,
            seed=0,
            note=worst,
            metric="correlation of neighbouring rows",
            smallest=float(norm.isf(alpha / (2 * len(tests) * width)) + norm.ppf(0.9)) / math.sqrt(n),
        )


def _neighbours(centred: Tensor, call: Tensor) -> float:
    joined = call[1:] == call[:-1]
    products = (centred[1:] * centred[:-1])[joined]
    spread = centred.square().mean(0)
    if len(products) < 100 or not bool((spread > 0).all()):
        return 1.0
    score = products.sum(0).abs() / (spread * math.sqrt(len(products)))
    return min(1.0, 2 * centred.shape[-1] * float(norm.sf(float(score.max()))))


def _levels(columns: Tensor, call: Tensor, large: Tensor) -> float:
    groups = [columns[call == number].numpy() for number in torch.nonzero(large).squeeze(-1).tolist()]
    if len(groups) < 2 or not bool((columns.std(0) > 0).all()):
        return 1.0
    return min(1.0, columns.shape[-1] * float(np.min(f_oneway(*groups).pvalue)))


def _coins(accepted: Tensor | None, call: Tensor, large: Tensor) -> float:
    if accepted is None:
        return 1.0
    hits = torch.bincount(call, weights=accepted.double())
    table = torch.stack((hits, torch.bincount(call) - hits))[:, large].numpy()
    # Where a cell expects few rows the chi-square law does not hold, and there is little to be learnt.
    if table.shape[1] < 2 or float(np.min(table.sum(1)[:, None] * table.sum(0) / max(1.0, table.sum()))) < 10:
        return 1.0
    return float(chi2_contingency(table, correction=False).pvalue)


def _copies(sample: Tensor, call: Tensor, size: Tensor) -> float:
    few = (size > 1) & (size <= SMALL_CALL)
    if not bool(few.any()):
        return 1.0
    rows = few[call]
    values = sample[rows].reshape(int(rows.sum()), -1).double()
    tagged = torch.cat((values, call[rows].unsqueeze(-1).double()), -1).numpy()
    places, counts = np.unique(tagged, axis=0, return_counts=True)
    _, which, calls = np.unique(places[:, :-1], axis=0, return_inverse=True, return_counts=True)
    # A value that several calls return is an atom, which is a matter of the law of single rows.
    with_copies = len(np.unique(places[(counts > 1) & (calls[which] == 1), -1]))
    chance = float((size[few] * (size[few] - 1)).max()) / 2 * resolution(sample)
    return float(binom.sf(with_copies - 1, int(few.sum()), min(1.0, chance)))
