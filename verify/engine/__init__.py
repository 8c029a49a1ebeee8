"""The engine: shards of a source are counted, here or on any executor, and their tallies merge by addition."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from typing import Any, Protocol
from zlib import crc32

import torch

from distributions.tape import GeneratorTape
from verify.checks import Statistic, Tally

Tallies = Mapping[Statistic, Tally]
AHEAD = 64
"""Shards handed to an executor before the first of them is asked for."""


class Source(Protocol):
    """What is judged: a frozen dataclass or a function that processes can be sent."""

    def __call__(self, shard: int) -> tuple[Any, Any]:
        """The sample and the truth of one shard, a function of its number alone; different numbers, independent draws.

        A sample of rows (n, *event) comes with the law that they should follow, or with as many of the target's own.
        """
        ...


def own_tape(shard: int) -> GeneratorTape:
    """The tape of the statistics' own draws. Its seed is hashed, and of 32 bits, which is all that torch's generator
    reads: sources take small numbers for seeds, and no draw of theirs may come again.
    """
    return GeneratorTape(crc32(f"statistics of shard {shard}".encode()))


def count(statistics: Iterable[Statistic], source: Source, shard: int) -> Tallies:
    """The tallies of one shard, each statistic counted once."""
    torch.set_num_threads(1)
    sample, truth = source(shard)
    tape = own_tape(shard)
    return {statistic: statistic(sample, truth, tape) for statistic in dict.fromkeys(statistics)}


def merge(first: Tallies, second: Tallies) -> Tallies:
    """The tallies of both."""
    return {statistic: tally + second[statistic] for statistic, tally in first.items()}


def growing(
    statistics: Iterable[Statistic], source: Source, shards: Iterable[int], executor: Executor | None = None
) -> Iterator[Tallies]:
    """The tallies of the first shard, of the first two, and so on: merged in the order of ``shards``, so that the
    result is the same to the last digit wherever they were counted. Whoever stops asking has lost nothing.

    ``executor``: any of ``concurrent.futures``, or another with its interface (Dask's ``Client.get_executor()``).
    """
    wanted = tuple(dict.fromkeys(statistics))
    total: Tallies | None = None
    for found in _counted(wanted, source, shards, executor):
        total = found if total is None else merge(total, found)
        yield total


def tallied(
    statistics: Iterable[Statistic], source: Source, shards: Iterable[int], executor: Executor | None = None
) -> Tallies:
    """The tallies of all shards. Raises ValueError where there is none."""
    last = deque(growing(statistics, source, shards, executor), maxlen=1)
    if not last:
        raise ValueError("no shards to count; ask for one or more")
    return last[0]


def _counted(
    statistics: tuple[Statistic, ...], source: Source, shards: Iterable[int], executor: Executor | None
) -> Iterator[Tallies]:
    if executor is None:
        yield from (count(statistics, source, shard) for shard in shards)
        return
    waiting: deque[Future[Tallies]] = deque()
    try:
        for shard in shards:
            waiting.append(executor.submit(count, statistics, source, shard))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
