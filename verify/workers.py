"""Processes that work for this one."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any


class Processes(ProcessPoolExecutor):
    """So many fresh processes of one thread each, which leave an interrupt to this one, and leave with it, however it
    ends. Where the block ends early, what no process has begun is not waited for; after an interrupt, nothing is.
    """

    def __init__(self, count: int | None = None) -> None:
        """``count``: the cores of the machine, unless given. Fresh, since a forked torch may hang in its threads."""
        super().__init__(count or os.cpu_count(), multiprocessing.get_context("spawn"), initializer=_follow)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with _uninterrupted():
            return super().submit(fn, *args, **kwargs)

    def __exit__(self, *error: Any) -> None:
        if isinstance(error[1], KeyboardInterrupt):
            for process in list((self._processes or {}).values()):
                process.terminate()
        self.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Puts an interrupt off. A process started meanwhile has it put off for good, before it could ignore it itself."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow() -> None:
    # Ctrl-C reaches every process of a terminal; only the first is to answer, and takes back what waits.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave() -> None:
        parent.join()
        os._exit(1)

    # A killed parent closes no queue, and its processes would wait for work for ever.
    threading.Thread(target=leave, daemon=True).start()

    import torch  # with one thread: sums in another order differ in their last digits

    torch.set_num_threads(1)
