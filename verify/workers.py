"""Processes that work for this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor


def processes(count: int) -> ProcessPoolExecutor:
    """Fresh processes that leave an interrupt to this one, and leave with it, however it ends."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=_follow)


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
