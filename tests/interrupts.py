"""What a child process does first that is to be interrupted."""

from __future__ import annotations

import signal


def heard() -> None:
    """A job that a shell runs in the background ignores interrupts, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
