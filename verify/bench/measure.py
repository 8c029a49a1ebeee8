"""Timing a function on a device: synchronised, after a warm-up, the median of its runs and their quartiles."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

WARM_UP, FEWEST, MOST = 3, 5, 200
WAYS = ("eager", "compiled", "graph")
Run = partial[Tensor]


class OutOfMemory(RuntimeError):
    """The device has no room for this."""


@dataclass(frozen=True)
class Timing:
    """Seconds: the ``median`` of ``runs`` and their quartiles, ``low`` and ``high``."""

    median: float
    low: float
    high: float
    runs: int


def synchronised(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


def timed(run: Callable[[], object], device: torch.device, seconds: float) -> Timing:
    """Runs it for about ``seconds``, ``FEWEST`` to ``MOST`` times, each waited for. Raises OutOfMemory."""
    found: list[float] = []
    try:
        for _ in range(WARM_UP):
            run()
        synchronised(device)
        begin = time.perf_counter()
        while len(found) < FEWEST or (len(found) < MOST and time.perf_counter() - begin < seconds):
            start = time.perf_counter()
            run()
            synchronised(device)
            found.append(time.perf_counter() - start)
    except RuntimeError as error:
        raise refused(error) from error
    low, median, high = statistics.quantiles(found, n=4)
    return Timing(median, low, high, len(found))


def forget(device: torch.device) -> None:
    """Gives back the memory that nothing holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.compiler.reset()
        torch.cuda.empty_cache()


def refused(error: RuntimeError) -> RuntimeError:
    """OutOfMemory in place of whatever the device calls it; any other error as it is."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    full = isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)
    return OutOfMemory(str(error)) if full else error


def ways(device: torch.device) -> tuple[tuple[str, ...], str]:
    """How a function can be run on the device, and a sentence on what is left out."""
    if device.type == "cuda":
        return WAYS, ""
    return WAYS[:1], f"torch.compile and CUDA graphs are left out: this device is {device.type}, not cuda."


def prepared(run: Run, way: str) -> Callable[[], object]:
    """A function of its arguments as it is, compiled for any shape, or as a CUDA graph that is replayed.

    A graph is captured after a warm-up on a stream of its own; its inputs must stay where they are. Raises ValueError
    for another way.
    """
    if way == "eager":
        return run
    if way == "compiled":
        return partial(_compiled(run.func), *run.args)
    if way != "graph":
        raise ValueError(f"there is no way {way!r}; choose one of {', '.join(WAYS)}")
    cuda: Any = torch.cuda
    stream = cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    replay: Callable[[], object] = graph.replay
    return replay


@cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Once for all shapes, and for all models until they are forgotten."""
    return torch.compile(function, dynamic=True)
