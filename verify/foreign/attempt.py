"""Work in a room of its own, with no more stand-ins than the function needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from verify.foreign.interpose import Room
from verify.foreign.leaf import NotUnderstood

Found = TypeVar("Found")


def attempt(fn: Callable[..., Any], work: Callable[[Room], Found]) -> tuple[Found, Room]:
    """What ``work`` finds in a room opened for ``fn``, and that room; once more with a lazy ``float`` where ``fn`` asks
    a draw for a plain number. Raises NotUnderstood where a draw has no exact account, or escaped the tape.
    """
    try:
        return _once(work, Room(fn))
    except NotUnderstood as reason:
        if "plain float" not in str(reason):
            raise
    return _once(work, Room(fn, shim_float=True))


def _once(work: Callable[[Room], Found], room: Room) -> tuple[Found, Room]:
    with room:
        found = work(room)
    if room.escapes:
        raise NotUnderstood("; ".join(dict.fromkeys(room.escapes)))
    return found, room
