"""Parts of a tally that merge by taking the least or the greatest, written ``+`` like every merge."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class First:
    """The least label of what was looked for, such as (shard, row); None where there was nothing."""

    label: tuple[int, ...] | None = None

    def __add__(self, other: First) -> First:
        found = [item.label for item in (self, other) if item.label is not None]
        return First(min(found, default=None))


@dataclass(frozen=True)
class Largest:
    """The largest value of a non-negative quantity; 0 where there was none."""

    value: float = 0.0

    def __add__(self, other: Largest) -> Largest:
        return Largest(max(self.value, other.value))
