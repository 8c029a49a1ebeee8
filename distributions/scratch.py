"""Memory that is written over and over, since fresh pages can cost more than the arithmetic that fills them."""

from __future__ import annotations

import threading

import numpy as np
import torch

NUMPY: dict[torch.dtype, np.dtype] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
_held = threading.local()


def scratch(size: int, dtype: torch.dtype) -> np.ndarray:
    """An uninitialised array (size,) of float32 or float64, good until this thread asks for the next one."""
    wanted = size * dtype.itemsize
    held: np.ndarray | None = getattr(_held, "bytes", None)
    if held is None or len(held) < wanted:
        held = _held.bytes = torch.empty(wanted, dtype=torch.uint8).numpy()  # it begins on a cache line, numpy's do not
    return held[:wanted].view(NUMPY[dtype])
