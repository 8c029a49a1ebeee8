"""The promised power on the reference defects: a shift, a contamination and a correlation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distributions.gaussian import FullGaussian
from distributions.tape import GeneratorTape
from tests.chance import at_least
from tests.law_checks_under_test import Draw, normal, seen
from verify.checks import Check
from verify.checks.anderson_darling import AndersonDarling
from verify.checks.lags import Lags
from verify.checks.neyman import Neyman
from verify.checks.pooled_products import PooledProducts
from verify.checks.products import Products
from verify.records import Finding


def chains(rho: float, length: int = 8, width: int = 2) -> FullGaussian:
    """Independent stationary autoregressions of order 1, N(0, 1) at every place; tokens of ``width`` numbers."""
    apart = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    factor = np.kron(np.linalg.cholesky(rho**apart), np.eye(width))
    return FullGaussian(torch.zeros(length * width), torch.as_tensor(factor))


def contaminated(n: int, tape: GeneratorTape) -> Tensor:
    """N(0, I) in 16 dimensions, 1 % of it N(c, I / 4) with |c| = 3, in a direction of its own every time."""
    away = torch.nn.functional.normalize(tape.normal("c", (16,)), dim=0)
    z, hit = tape.normal("z", (n, 16)), tape.uniform("hit", (n, 1)) < 0.01
    return torch.where(hit, 3 * away + 0.5 * z, z)


@dataclass(frozen=True)
class Bank(Check):
    """Columns, pairs and all pairs together, at a third of the level each."""

    claim = Products.claim

    def __call__(self, sample: Any, truth: Any, alpha: float, tape: Any) -> Finding:
        pairs = Products().statistic(sample, truth, tape)
        found = [check.judge(pairs, alpha / 3) for check in (Products(), PooledProducts())]
        return min([*found, Neyman(bits=12)(sample, truth, alpha / 3, tape)], key=lambda item: item.p_value or 0.0)

    statistic = judge = None  # type: ignore[assignment]


REFERENCE: dict[str, tuple[Check, Draw, Any]] = {
    "mean shift 0.02": (AndersonDarling(), lambda tape: tape.normal("z", (65_000, 1)) + 0.02, normal()),
    "1 % contamination in 16-D": (Bank(), lambda tape: contaminated(26_000, tape), normal(16)),
    "correlation 0.48 for 0.50": (
        Lags(width=2),
        lambda tape: tape.normal("z", (3600, 16)) @ chains(0.48).scale_tril.T,
        chains(0.5),
    ),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_power_on_reference_defects(name: str) -> None:
    """At level 1e-3, nine times in ten: fewer than 25 of 40 have probability 1e-6."""
    check, draw, truth = REFERENCE[name]
    assert seen(check, draw, truth, 40) >= at_least(0.9, 40)
