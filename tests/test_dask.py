"""Shards counted in other processes, and on a Dask cluster: the same tallies to the last bit, and the same verdict."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

import pytest
import torch

from distributions.gaussian import Gaussian
from verify import check_sampler
from verify.checks import Statistic
from verify.checks.betting import BoundedFeatures
from verify.checks.products import LegendreProducts
from verify.checks.support import Impossibilities
from verify.engine import Tallies, tallied
from verify.engine.bounds import PairHistogram
from verify.sampler import Drawn, Draws
from verify.statistics.histogram import TransformHistogram

torch.set_num_threads(1)
LAW = Gaussian(torch.zeros(2), torch.ones(2))
# Whatever is sent to a worker must be importable there: a law as a sampler, and never a function of this file.
RIGHT, WRONG = Draws(LAW), Draws(Gaussian(torch.full((2,), 0.05), torch.ones(2)))
STATISTICS: tuple[Statistic, ...] = (
    TransformHistogram(10), PairHistogram(), BoundedFeatures(), LegendreProducts(), Impossibilities(),
)  # fmt: skip


@pytest.fixture(scope="module", params=["processes", "dask"])
def executor(request: Any) -> Iterator[Executor]:
    """Two workers of one thread each."""
    if request.param == "processes":
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
        return
    distributed = pytest.importorskip("distributed", reason="distributed is not installed; pip install distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.ERROR
    ) as cluster:
        with distributed.Client(cluster) as client, client.get_executor() as pool:
            yield pool


def bits(tallies: Tallies) -> list[dict[str, Any]]:
    """Every field, tensors as their bytes."""
    return [
        {name: part.numpy().tobytes() if isinstance(part, torch.Tensor) else part for name, part in vars(tally).items()}
        for tally in tallies.values()
    ]


def test_other_processes_count_what_this_one_counts(executor: Executor) -> None:
    source = Drawn(RIGHT, LAW, 500, 3, LAW.event_shape)
    here = tallied(STATISTICS, source, range(7))
    there = tallied(STATISTICS, source, range(7), executor)
    assert list(here) == list(there) == list(STATISTICS)  # the keys that come back are equal to those that were sent
    assert bits(here) == bits(there)
    assert bits(here) != bits(tallied(STATISTICS, source, range(1, 8)))


@pytest.mark.parametrize("sampler", [RIGHT, WRONG], ids=["right", "wrong"])
def test_the_verdict_is_the_same(executor: Executor, sampler: Draws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verify.sampler.FIRST", {"quick": (1 << 14, 1e9)})
    monkeypatch.setattr("verify.sampler.ROWS", 1 << 11)
    one, other = (check_sampler(sampler, LAW, epsilon=0.1, executor=each) for each in (None, executor))
    assert one.status == other.status == ("lossless" if sampler is RIGHT else "lossy")
    assert one.findings == other.findings and one.notes == other.notes
    assert (one.bias_lower, one.bias_upper, one.scope) == (other.bias_lower, other.bias_upper, other.scope)
