"""A progress bar for whoever waits at a terminal, and a line a minute for whoever reads it in a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from importlib.util import find_spec
from threading import Timer
from time import monotonic
from typing import TypeVar

Item = TypeVar("Item")
DELAY = 2.0
PERIOD = 60.0


def track(items: Iterable[Item], total: int | None = None, label: str = "working") -> Iterator[Item]:
    """Yield the items; after two seconds draw a bar on stderr, if that is a terminal and ``rich`` is installed.

    Elsewhere, where a bar would litter a log, a line on stderr once a minute says how many are done. ``total`` is asked
    of ``items`` where it is not given. The bar is cleared at the end, whatever the end is.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if not (sys.stderr.isatty() and find_spec("rich")):
        yield from _logged(items, total, label)
        return
    from rich.console import Console
    from rich.progress import Progress

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


def _logged(items: Iterable[Item], total: int | None, label: str) -> Iterator[Item]:
    begun = last = monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = monotonic()
        if now - last >= PERIOD:
            last = now
            of = "" if total is None else f" of {total}"
            print(f"{label}: {done}{of} after {(now - begun) / 60:.0f} min", file=sys.stderr, flush=True)
