"""A token drawn but not looked at: its branches are followed only where the code uses it.

Engines draw a replacement for every position, or a bonus for every row, and then keep one. What nobody looks at needs
no branch, since summing over it gives one; and a noise vector shared by several such draws is used once if one is used.
"""

from __future__ import annotations

from collections.abc import Callable

from verify.foreign.leaf import Leaf


class Choice:
    """An index whose value is decided when it is first asked for."""

    __slots__ = ("_decide", "_leaf", "_value")

    def __init__(self, leaf: Leaf, decide: Callable[[], int]) -> None:
        self._leaf, self._decide = leaf, decide
        self._value: int | None = None

    def settle(self) -> int:
        """The index. Raises NotUnderstood where the draw is of another call, or its noise was used elsewhere."""
        if self._leaf.closed:
            raise (Leaf.current or self._leaf).misunderstand("a token drawn in an earlier call is used again")
        if self._value is None:
            self._value = self._decide()
        return self._value
