"""Uniforms of narrow types: so few values that every one is followed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr, ndtri

from verify.foreign.leaf import Atom, Leaf
from verify.foreign.symbols import Symbol, is_number


class GridSymbol(Symbol):
    """A function of a uniform on a coarse grid, held as its value at every grid point: any map at all is exact."""

    __slots__ = ("values",)

    def __init__(self, atom: Atom, values: np.ndarray[Any, Any]) -> None:
        super().__init__(atom, (), float(values.min()), float(values.max()), True, None)
        self.values = values

    @staticmethod
    def draw(leaf: Leaf, site: str, values: np.ndarray[Any, Any], weights: np.ndarray[Any, Any]) -> GridSymbol:
        return GridSymbol(Atom(leaf, site, weights), values)

    def _map(self, function: Callable[[Any], Any]) -> GridSymbol:
        self.atom.check()
        with np.errstate(all="ignore"):
            return GridSymbol(self.atom, np.asarray(function(self.values), dtype=np.float64))

    def under(self, bar: float, strict: bool) -> bool:
        return self.atom.among(self.values < bar if strict else self.values <= bar)

    def __eq__(self, other: Any) -> Any:
        return self.atom.among(self.values == float(other)) if is_number(other) else NotImplemented

    def _whole(self) -> int:
        for whole in np.unique(np.floor(self.values)):
            if self.atom.among(np.floor(self.values) == whole):
                return int(whole)
        raise self._refuse("made an integer of nothing")

    def __add__(self, other: Any) -> Any:
        return self._map(lambda v: v + float(other)) if is_number(other) else NotImplemented

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        return self._map(lambda v: v * float(other)) if is_number(other) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self._map(lambda v: np.true_divide(v, float(other))) if is_number(other) else NotImplemented

    def __rtruediv__(self, other: Any) -> Any:
        return self._map(lambda v: np.true_divide(float(other), v)) if is_number(other) else NotImplemented

    def reciprocal(self) -> Symbol:
        return self._map(np.reciprocal)

    def __pow__(self, other: Any) -> Any:
        return self._map(lambda v: v ** float(other)) if is_number(other) else NotImplemented

    def __rpow__(self, other: Any) -> Any:
        return self._map(lambda v: float(other) ** v)

    def __abs__(self) -> Symbol:
        return self._map(np.abs)

    def log(self, base: float = math.e) -> Symbol:
        return self._map(lambda v: np.log(v) / math.log(base))

    def log1p(self) -> Symbol:
        return self._map(np.log1p)

    def exp(self) -> Symbol:
        return self._map(np.exp)

    def expm1(self) -> Symbol:
        return self._map(np.expm1)

    def sigmoid(self) -> Symbol:
        return self._map(lambda v: 1 / (1 + np.exp(-v)))

    def probit(self) -> Symbol:
        return self._map(ndtri)

    def normal_cdf(self) -> Symbol:
        return self._map(ndtr)

    def clip(self, low: float | None = None, high: float | None = None) -> Symbol:
        return self._map(lambda v: np.clip(v, low, high))

    def cast(self, dtype: torch.dtype) -> Any:
        if dtype.is_floating_point:
            # Through float32, as torch computes on narrow types.
            return (
                self._map(lambda v: torch.from_numpy(np.array(v)).float().to(dtype).double().numpy())
                if (dtype in (torch.bfloat16, torch.float16))
                else self
            )
        return super().cast(dtype)
