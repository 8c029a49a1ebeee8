"""Symbols beside the storages of ordinary tensors.

Where an element is symbolic its storage holds NaN, and a table beside the storage holds the symbol; so views and
in-place operations see one another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from verify.foreign.choice import Choice
from verify.foreign.leaf import Leaf
from verify.foreign.symbols import Symbol

HALF = (torch.bfloat16, torch.float16)


class Room(Protocol):
    """Where the code under test runs: the current leaf, and what has been seen of generators and dtypes."""

    leaf: Leaf
    precisions: set[torch.dtype]

    def see(self, generator: object) -> None: ...


class Shadows(TorchFunctionMode):
    """Tensors whose storages have symbols beside them; the rest of the mode is built on this."""

    def __init__(self, room: Room) -> None:
        super().__init__()
        self.room = room
        self.count = 0
        self.lazy = False  # has any symbol been handed out in this run?
        self._shadows: dict[int, tuple[Tensor, np.ndarray[Any, Any]]] = {}

    def begin(self) -> None:
        """Forget the last run's symbols."""
        self._shadows.clear()
        self.count = 0
        self.lazy = False

    @property
    def leaf(self) -> Leaf:
        return self.room.leaf

    def site(self, name: str) -> str:
        """The name of the next draw: what was called, and how many draws came before it."""
        self.count += 1
        return f"{name}#{self.count}"

    def _involved(self, item: Any) -> bool:
        if isinstance(item, Tensor):
            return bool(self._shadows) and self._symbols_of(item) is not None
        if item is None or isinstance(item, (int, float, str)):
            return False
        if isinstance(item, Symbol):
            return True
        if isinstance(item, (list, tuple)):
            return any(map(self._involved, item))
        if isinstance(item, dict):
            return any(map(self._involved, item.values()))
        return isinstance(item, np.ndarray) and item.dtype == object

    # --- symbols beside storages -------------------------------------------------------------------------------
    def _symbols_of(self, tensor: Tensor) -> np.ndarray[Any, Any] | None:
        """The tensor's elements as objects, None where concrete; or None if it has no symbol at all."""
        if tensor.layout is not torch.strided:
            return None
        try:
            entry = self._shadows.get(tensor.untyped_storage().data_ptr())
        except (NotImplementedError, RuntimeError):
            # A tensor inside vmap and the like has no storage of its own, and may stand for one that has symbols.
            raise self.leaf.misunderstand(f"a {type(tensor).__name__} without storage (vmap, functorch)") from None
        if entry is None or not tensor.numel():
            return None
        table = entry[1]
        index = torch.arange(len(table)).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).numpy()
        found: np.ndarray[Any, Any] = table[index] if index.ndim else scalar(table[int(index)])
        return found if any(item is not None for item in found.flat) else None

    def _lift(self, item: Any) -> np.ndarray[Any, Any]:
        """Any operand as an array of numbers and symbols."""
        if isinstance(item, Tensor):
            values = np.empty(item.shape, dtype=object)
            plain = item.detach().tolist()
            if values.ndim:
                values[...] = np.array(plain, dtype=object).reshape(values.shape)
            else:
                values[()] = plain
            symbols = self._symbols_of(item)
            if symbols is not None:
                mask = np.array([s is not None for s in symbols.flat], dtype=bool).reshape(symbols.shape)
                values[mask] = symbols[mask]
            return values
        if isinstance(item, np.ndarray):
            return item.astype(object) if item.dtype != object else np.asarray(item)
        if isinstance(item, (list, tuple)):
            return np.array(item, dtype=object)
        return scalar(item)

    def _settle(self, item: Any) -> None:
        """Decide the choices among the elements of an operand, in place."""
        if isinstance(item, Tensor):
            symbols = self._symbols_of(item)
            if symbols is not None and any(isinstance(element, Choice) for element in symbols.flat):
                self._write(item, each(lambda v: v.settle() if isinstance(v, Choice) else v, self._lift(item)))
        elif isinstance(item, (list, tuple)):
            for part in item:
                self._settle(part)

    def _lower(self, array: np.ndarray[Any, Any], dtype: torch.dtype) -> Tensor:
        """A tensor of this dtype with these elements, symbols among them or not."""
        tensor = torch.empty(array.shape, dtype=dtype)
        return self._write(tensor, array)

    def _attach(self, tensor: Tensor, item: Any) -> Tensor:
        """Put one symbol beside the storage of a tensor of one element: the commonest draw, without the machinery."""
        self._shadows[tensor.untyped_storage().data_ptr()] = (tensor, np.array([item], dtype=object))
        self.lazy = True
        return tensor

    def _write(self, tensor: Tensor, array: np.ndarray[Any, Any]) -> Tensor:
        """Put the elements into the tensor's storage and the table beside it."""
        if not tensor.numel():
            return tensor
        array = np.broadcast_to(array, tuple(tensor.shape))
        self.lazy = True
        whole = not tensor.dtype.is_floating_point
        if tensor.dtype in HALF or whole:
            array = each(lambda v: v.cast(tensor.dtype) if isinstance(v, Symbol) else v, array)
        if not whole or tensor.dtype is torch.bool:
            array = each(lambda v: v.settle() if isinstance(v, Choice) else v, array)
        mask = np.array([isinstance(item, (Symbol, Choice)) for item in array.flat], dtype=bool).reshape(array.shape)
        # What is read past the table must not look like a value.
        poison = math.nan if not whole or tensor.dtype is torch.bool else torch.iinfo(tensor.dtype).min
        concrete = [poison if symbolic else item for symbolic, item in zip(mask.flat, array.flat, strict=True)]
        wide = torch.float64 if tensor.dtype.is_floating_point else tensor.dtype
        tensor.copy_(torch.tensor(concrete, dtype=wide).reshape(tensor.shape))
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if key not in self._shadows:
            if not mask.any():
                return tensor
            self._shadows[key] = (tensor, np.full(storage.nbytes() // tensor.element_size(), None, dtype=object))
        table = self._shadows[key][1]
        index = torch.arange(len(table)).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).numpy()
        for place, symbolic, item in zip(np.asarray(index).flat, mask.flat, array.flat, strict=True):
            table[place] = item if symbolic else None
        return tensor


def scalar(item: Any) -> np.ndarray[Any, Any]:
    """A zero-dimensional array of this one object."""
    array = np.empty((), dtype=object)
    array[()] = item
    return array


def each(function: Callable[[Any], Any], array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The function of every element, as an array of objects."""
    result = np.empty(array.shape, dtype=object)
    for place in np.ndindex(*array.shape):
        result[place] = function(array[place])
    return result
