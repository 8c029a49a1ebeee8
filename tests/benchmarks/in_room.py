"""Work done with a function's draws answered, and the part of its time that opening the room took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from verify.foreign.interpose import Room


@dataclass(frozen=True)
class Answered:
    """What the work returned last, the seconds that opening and closing took, and their ``share`` of the whole."""

    result: Any
    opening: float
    share: float


def in_room(fn: Callable[..., Any], work: Callable[[Room], Any], passes: int) -> Answered:
    """Do the work so many times in one room. Clocks are shifted in an open room, hence the room's own."""
    begun = Room.now()
    with Room(fn) as room:
        opened = Room.now()
        for _ in range(passes):
            result = work(room)
        inside = Room.now() - opened
    whole = Room.now() - begun
    assert not room.escapes
    return Answered(result, whole - inside, 1 - inside / whole)
