"""Memory that is written over and over, since fresh pages can cost more than the arithmetic that fills them."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

_held = threading.local()


def scratch(size: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor (size,) on the host, good until this thread asks for the next one."""
    wanted = size * dtype.itemsize
    held: Tensor | None = getattr(_held, "bytes", None)
    if held is None or len(held) < wanted:
        held = _held.bytes = torch.empty(wanted, dtype=torch.uint8)
    return held[:wanted].view(dtype)
