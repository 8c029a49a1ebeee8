"""Samplers of Gaussian laws, run until a bound is reached: by coupling where that is possible, else by their draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from verify import check_verifier
from verify.errors import SubjectError

torch.set_num_threads(1)


def thinning(draft_value: Tensor, draft: Any, target: Any) -> Tensor:
    """The token rule, with the residual drawn by thinning."""
    keep = torch.rand(len(draft_value)).log() <= target.log_prob(draft_value) - draft.log_prob(draft_value)
    out, todo = draft_value.clone(), torch.nonzero(~keep)[:, 0]
    while len(todo):
        fresh = target.sample((len(todo),))
        taken = torch.rand(len(todo)).log() > draft.log_prob(fresh) - target.log_prob(fresh)
        out[todo[taken]] = fresh[taken]
        todo = todo[~taken]
    return out


def ignoring(draft_value: Tensor, draft: Any, target: Any) -> Tensor:
    """The target's own draws, from a generator that no tape answers."""
    return target.mean + target.stddev * torch.as_tensor(np.random.randn(*draft_value.shape))


def shifted(draft_value: Tensor, draft: Any, target: Any) -> Tensor:
    return ignoring(draft_value, draft, target) + 0.3


def test_a_coupled_sampler_is_run_until_the_bound_on_total_variation(capfd: pytest.CaptureFixture[str]) -> None:
    verdict = check_verifier(thinning, space="gaussian", until=1e-4, seconds=60)
    assert (verdict.status, verdict.evidence, verdict.metric) == ("lossless", "coupling", "tv")
    assert 2e-5 < verdict.bias_upper <= 1e-4 and "none differ" in verdict.notes[0]
    lines = capfd.readouterr().err.splitlines()
    bounds = [float(line.rpartition(" ")[2]) for line in lines]
    assert len(bounds) >= 3 and bounds == sorted(bounds, reverse=True) and lines[0].startswith("n = ")


def test_one_that_cannot_be_coupled_is_judged_by_its_draws() -> None:
    verdict = check_verifier(ignoring, space="gaussian", until=0.01, seconds=60)
    assert (verdict.status, verdict.evidence, verdict.metric) == ("lossless", "known law", "ks")
    assert 0.004 < verdict.bias_upper <= 0.01


def test_a_wrong_one_is_lossy_at_once_and_time_ends() -> None:
    assert check_verifier(shifted, space="gaussian", until=1e-4, seconds=60).status == "lossy"
    verdict = check_verifier(ignoring, space="gaussian", until=1e-5, seconds=0.1)
    assert verdict.status == "inconclusive" and "rows certify ks <= 1e-05" in verdict.needs
    with pytest.raises(SubjectError, match="until is 0"):
        check_verifier(ignoring, space="gaussian", until=0)
