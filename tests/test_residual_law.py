"""The transform of residuals to uniforms: on Gaussians against thinned draws, and on tokens."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from distributions.categorical import Categorical
from distributions.gaussian import FullGaussian
from distributions.law import Law
from distributions.tape import GeneratorTape
from verify.checks.residual_law import residual_uniforms
from verify.planted_gaussian import PlantedThinning


def residual_by_thinning(target: Law, draft: Law, rows: int) -> Tensor:
    index = torch.zeros(rows, dtype=torch.long)
    return PlantedThinning().replace(target[None][index], draft[None][index], GeneratorTape(11), "residual")


FULL = torch.tensor([[2.0, 0.0, 0.0], [0.5, 1.0, 0.0], [-0.3, 0.2, 0.7]])


@pytest.mark.parametrize("delta", [0.05, 1.0, 4.0])
def test_residuals_become_uniform(delta: float) -> None:
    """Against thinned draws, Kolmogorov-Smirnov at 1e-6 a column: on the line and with a full covariance."""
    for start, scale in ((torch.ones(1), torch.tensor([[0.7]])), (torch.tensor([1.0, -1.0, 0.5]), FULL)):
        shift = delta * scale.double() @ torch.ones(len(start)).double() / len(start) ** 0.5
        draft, target = FullGaussian(start, scale), FullGaussian(start.double() + shift, scale)
        value = residual_by_thinning(target, draft, 20_000)
        columns = residual_uniforms(value, target[None], draft[None], GeneratorTape(0))
        assert columns is not None and columns.shape == (20_000, min(2, len(start)))
        for column in columns.T:
            assert kstest(column.numpy(), "uniform").pvalue > 1e-6
        one = replace_by_mean(value, target)
        assert (
            kstest(residual_uniforms(one, target[None], draft[None], GeneratorTape(0))[:, 0], "uniform").pvalue < 1e-9
        )  # type: ignore[index]


def replace_by_mean(value: Tensor, law: FullGaussian) -> Tensor:
    return law.mean + 0.9 * (value - law.mean)


def test_residuals_of_tokens_become_uniform_in_both_orders() -> None:
    """Rows with laws of their own; Kolmogorov-Smirnov at 1e-6 a column."""
    tape = GeneratorTape(12)
    target, draft = (Categorical(tape.race(name, (30_000, 6)) ** 2) for name in ("target", "draft"))
    rest = Categorical((target.probs - draft.probs).clamp(min=0))
    columns = residual_uniforms(rest.sample(tape, "rest"), target, draft, tape)
    assert columns is not None and columns.shape == (30_000, 2)
    assert all(kstest(column.numpy(), "uniform").pvalue > 1e-6 for column in columns.T)
    wrong = residual_uniforms(target.sample(tape, "wrong"), target, draft, tape)
    assert wrong is not None and all(kstest(column.numpy(), "uniform").pvalue < 1e-9 for column in wrong.T)
