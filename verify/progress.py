"""A progress bar for whoever waits at a terminal; nothing at all for anybody else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from threading import Timer
from typing import TypeVar

Item = TypeVar("Item")
DELAY = 2.0


def track(items: Iterable[Item], total: int | None = None, label: str = "working") -> Iterator[Item]:
    """Yield the items; after two seconds draw a bar on stderr, if that is a terminal and ``rich`` is installed.

    ``total`` is asked of ``items`` where it is not given. The bar is cleared at the end, whatever the end is.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    # Rich would otherwise replace sys.stdout, which the command line redirects around the code of strangers.
    bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False)
    task = bar.add_task(label, total=total)
    # A timer, not a look at the clock between items: the first item alone may take a minute.
    timer = Timer(DELAY, bar.start)
    timer.daemon = True
    timer.start()
    try:
        for item in items:
            yield item
            bar.advance(task)
    finally:
        timer.cancel()
        timer.join()
        bar.stop()
