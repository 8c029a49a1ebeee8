"""What torch's operations make of symbols."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verify.foreign.choice import Choice
from verify.foreign.race import winner
from verify.foreign.shadows import Shadows, each
from verify.foreign.symbols import Symbol

_ID = 2.0**40  # element ids start here: far above any probability, exact in float64
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "lt": operator.lt, "less": operator.lt, "le": operator.le, "less_equal": operator.le,
    "gt": operator.gt, "greater": operator.gt, "ge": operator.ge, "greater_equal": operator.ge,
    "eq": operator.eq, "ne": operator.ne, "not_equal": operator.ne,
}  # fmt: skip
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add, "sub": operator.sub, "subtract": operator.sub, "mul": operator.mul, "multiply": operator.mul,
    "div": operator.truediv, "divide": operator.truediv, "true_divide": operator.truediv, "truediv": operator.truediv,
    "pow": operator.pow, "radd": operator.add, "rmul": operator.mul,
    "rsub": lambda a, b: b - a, "rdiv": lambda a, b: b / a, "rtruediv": lambda a, b: b / a, "rpow": lambda a, b: b**a,
}  # fmt: skip
_UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": operator.neg, "negative": operator.neg, "positive": operator.pos, "abs": abs, "absolute": abs,
    **{name: operator.methodcaller(name) for name in ("log", "log2", "log10", "log1p", "exp", "expm1", "sqrt", "square",
                                                      "reciprocal", "sigmoid")},
    "rsqrt": lambda v: v ** -0.5, "floor": lambda v: float(v.floor()), "ceil": lambda v: float(v.ceil()),
    "trunc": lambda v: float(int(v)), "ndtri": operator.methodcaller("probit"),
    "special_ndtri": operator.methodcaller("probit"), "ndtr": operator.methodcaller("normal_cdf"),
    "special_ndtr": operator.methodcaller("normal_cdf"),
}  # fmt: skip
_CASTS = {
    "float": torch.float32, "double": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16,
    "long": torch.int64, "int": torch.int32, "bool": torch.bool,
}  # fmt: skip
_MOVES = frozenset(
    "getitem index_select gather take take_along_dim masked_select squeeze unsqueeze view view_as reshape reshape_as "
    "flatten unflatten ravel expand expand_as broadcast_to broadcast_tensors repeat repeat_interleave tile transpose "
    "permute t movedim moveaxis swapaxes swapdims select narrow split chunk tensor_split unbind cat concat concatenate "
    "stack hstack vstack flip roll clone detach contiguous cpu diagonal where masked_fill scatter index_put unfold "
    "as_strided alias atleast_1d atleast_2d requires_grad_ iter setitem copy_ fill_ zero_ masked_fill_ scatter_ "
    "index_put_ index_fill_ index_copy_ index_fill index_copy detach_".split()
)
# The arguments that a move takes its elements from, where these are not the first alone.
_DATA = {
    "where": (1, 2), "setitem": (0, 2), "masked_fill": (0, 2), "masked_fill_": (0, 2), "scatter": (0, 3),
    "scatter_": (0, 3), "index_put": (0, 2), "index_put_": (0, 2), "copy_": (0, 1), "fill_": (0, 1),
    "index_copy": (0, 3), "index_copy_": (0, 3), "index_fill": (0, 3), "index_fill_": (0, 3),
}  # fmt: skip
_PLAIN = frozenset(
    "dim size numel nelement stride storage_offset is_contiguous is_floating_point is_complex element_size len get "
    "data_ptr untyped_storage new_zeros new_ones new_empty new_full new_tensor zeros_like ones_like empty_like "
    "full_like result_type is_tensor get_device is_same_size set hash type_id is_nonzero_type".split()
)
_INPLACE_MOVES = frozenset("setitem copy_ fill_ zero_ masked_fill_ scatter_ index_put_ index_fill_ index_copy_".split())
_ROUNDED: dict[str, Callable[[Any, Any], Any]] = {"floor": operator.floordiv, "trunc": lambda a, b: int(a / b)}


class Operations(Shadows):
    """The operations that understand symbols; all others refuse them."""

    def _symbolic(self, func: Any, raw: str, args: Any, kwargs: Any) -> Any:
        if raw == "__get__":
            return func(*args, **kwargs)  # shape, dtype, T: views or facts
        name = raw.strip("_") if raw.startswith("__") else raw
        name = {"iadd": "add_", "isub": "sub_", "imul": "mul_", "itruediv": "div_", "idiv": "div_"}.get(name, name)
        if "out" in kwargs:
            raise self.leaf.misunderstand(f"torch.{name}(out=...) of a draw")
        self._settle_for(name, raw in ("long", "int"), args, kwargs)
        if not (any(map(self._involved, args)) or self._involved(kwargs)):
            return func(*args, **kwargs)
        if name in _MOVES:
            return self._move(func, name, args, kwargs)
        inplace = name.endswith("_")
        base = name.rstrip("_")
        if base in _COMPARE or base in _BINARY:
            array, dtype = self._binary(base, args, kwargs)
        elif base in _UNARY and len(args) == 1:
            array, dtype = self._map(_UNARY[base], args[0], base), args[0].dtype
        elif base in ("clamp", "clip", "clamp_min", "clamp_max"):
            array, dtype = self._clamp(base, *args, **kwargs), args[0].dtype
        elif raw in ("__float__", "__int__", "__trunc__", "__complex__"):
            return getattr(self._on_item(args[0]), raw)()
        elif not inplace and (handler := getattr(self, f"_on_{name}", None)) is not None:
            return handler(*args, **kwargs)
        elif not inplace and name in _CASTS:
            return self._cast(args[0], _CASTS[name])
        elif name in _PLAIN or name.startswith(("is_", "new_")):
            return func(*args, **kwargs)
        else:
            raise self.leaf.misunderstand(f"torch.{name} of a draw")
        if inplace:
            return self._write(args[0], array)
        return self._lower(array, dtype)

    def _settle_for(self, name: str, widens: bool, args: Any, kwargs: Any) -> None:
        """Decide the choices whose numbers the operation needs: all but those that it only moves, masks or widens."""
        if name.rstrip("_") in ("mul", "multiply", "add"):
            return
        kept = _DATA.get(name, (0,)) if name in _MOVES or widens else ()
        if name == "to" and not any(isinstance(item, torch.dtype) and item.is_floating_point for item in args[1:]):
            kept = (0,)
        for place, item in enumerate(args):
            if place not in kept:
                self._settle(item)
        for item in kwargs.values():
            self._settle(item)

    def _binary(self, name: str, args: Any, kwargs: Any) -> tuple[np.ndarray[Any, Any], torch.dtype]:
        first, second = args[0], args[1] if len(args) > 1 else kwargs["other"]
        if kwargs.get("alpha", 1) != 1 or len(args) > 2:
            raise self.leaf.misunderstand(f"torch.{name} of a draw with a third argument")
        left, right = self._lift(first), self._lift(second)
        mode = kwargs.get("rounding_mode")
        operation = (_COMPARE.get(name) or _BINARY[name]) if mode is None else _ROUNDED.get(mode, operator.truediv)
        array = _pairs(operation, left, right)
        if name in _COMPARE:
            return array, torch.bool
        return array, torch.result_type(_stand_in(first), _stand_in(second))

    def _map(self, function: Callable[[Any], Any], tensor: Any, name: str) -> np.ndarray[Any, Any]:
        def one(value: Any) -> Any:
            if isinstance(value, Symbol):
                return function(value)
            plain = getattr(torch, name, None) or getattr(torch.special, name)
            return plain(torch.tensor(value, dtype=torch.float64)).item()

        return each(one, self._lift(tensor))

    def _clamp(self, name: str, tensor: Any, *bounds: Any, **named: Any) -> np.ndarray[Any, Any]:
        order = {"clamp_min": ("min",), "clamp_max": ("max",)}.get(name, ("min", "max"))
        limits = dict(zip(order, bounds, strict=False)) | named
        array = self._lift(tensor)
        low, high = (self._lift(limits.get(side)) for side in ("min", "max"))

        def one(value: Any, least: Any, most: Any) -> Any:
            if isinstance(value, Symbol):
                if isinstance(least, Symbol) or isinstance(most, Symbol):
                    raise self.leaf.misunderstand("torch.clamp of a draw by a draw")
                return value.clip(least, most)
            value = value if least is None or value >= least else least
            return value if most is None or value <= most else most

        return np.asarray(np.frompyfunc(one, 3, 1)(array, low, high), dtype=object)

    def _cast(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return self._lower(self._lift(tensor), dtype)

    def _move(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Run an operation that only moves elements on their ids, and move the symbols likewise."""
        elements: list[Any] = []

        def number(item: Any) -> Any:
            if isinstance(item, Symbol):
                elements.append(item)
                return _ID + len(elements) - 1
            if isinstance(item, Tensor):
                symbols = self._symbols_of(item)
                if symbols is None:
                    return item.double() if item.is_floating_point() else item
                ids = item.detach().double().clone()
                flat = np.array([math.nan if s is None else 0.0 for s in symbols.flat])
                for place, symbol in enumerate(symbols.flat):
                    if symbol is not None:
                        flat[place] = _ID + len(elements)
                        elements.append(symbol)
                known = torch.from_numpy(flat).reshape(item.shape)
                return torch.where(known.isnan(), ids, known)
            if isinstance(item, (list, tuple)):
                return type(item)(map(number, item))
            return item

        def denumber(result: Tensor) -> np.ndarray[Any, Any]:
            return each(
                lambda v: elements[int(v - _ID)] if v is not None and 0 <= v - _ID < len(elements) else v,
                self._lift(result),
            )

        if name in _INPLACE_MOVES:
            moved = [number(item) for item in args]
            if isinstance(args[0], Tensor) and self._symbols_of(args[0]) is None:
                moved[0] = args[0].double().clone()  # wide enough for ids, whatever the dtype
            func(*moved, **{key: number(item) for key, item in kwargs.items()})
            self._write(args[0], denumber(moved[0]))
            return None if name == "setitem" else args[0]

        real = func(*args, **kwargs) if not _has_symbol((args, kwargs)) else None
        moved_result = func(*map(number, args), **{key: number(item) for key, item in kwargs.items()})

        def carry(moved: Any, actual: Any) -> Any:
            if isinstance(moved, Tensor):
                if isinstance(actual, Tensor) and (not actual.numel() or self._shares(actual)):
                    return actual  # a view: its symbols lie beside the storage already
                return self._lower(
                    denumber(moved), actual.dtype if isinstance(actual, Tensor) else torch.get_default_dtype()
                )
            if isinstance(moved, (list, tuple)):
                pairs = zip(moved, actual if actual is not None else [None] * len(moved), strict=True)
                return tuple(carry(one, other) for one, other in pairs)
            return moved

        if name == "iter":
            return iter([carry(m, None) for m in moved_result])
        return carry(moved_result, real)

    def _shares(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._shadows

    # --- operations with a rule of their own -------------------------------------------------------------------
    def _on_item(self, tensor: Tensor) -> Any:
        if tensor.numel() == 1:
            item = self._shadows[tensor.untyped_storage().data_ptr()][1][tensor.storage_offset()]
            return tensor.item() if item is None else item
        return tensor.item()  # torch's own error

    def _on_tolist(self, tensor: Tensor) -> Any:
        return self._lift(tensor).tolist()

    def _on_numpy(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        from verify.foreign.numpy_draws import lazy_array

        return lazy_array(self._lift(tensor))

    _on_array = _on_numpy

    def _on_bool(self, tensor: Tensor) -> Any:
        return bool(self._on_item(tensor))

    def _on_index(self, tensor: Tensor) -> Any:
        return int(self._on_item(tensor))

    def _on_repr(self, tensor: Tensor, *args: Any, **kwargs: Any) -> str:
        return "tensor(<draws>)"

    _on_format = _on_str = _on_repr

    def _on_to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        plain = torch.zeros((), dtype=tensor.dtype).to(*map(_stand_in, args), **kwargs)
        return self._cast(tensor, plain.dtype) if plain.dtype != tensor.dtype else tensor

    def _on_type(self, tensor: Tensor, dtype: Any = None, **kwargs: Any) -> Any:
        return (
            tensor.type()
            if dtype is None
            else self._on_to(tensor, torch.zeros((), dtype=tensor.dtype).type(dtype).dtype)
        )

    def _on_type_as(self, tensor: Tensor, other: Tensor) -> Any:
        return self._cast(tensor, other.dtype)

    def _on_isnan(self, tensor: Tensor) -> Tensor:
        return self._lower(each(lambda v: not isinstance(v, Symbol) and v != v, self._lift(tensor)), torch.bool)

    def _on_isinf(self, tensor: Tensor) -> Tensor:
        return self._lower(each(lambda v: not isinstance(v, Symbol) and math.isinf(v), self._lift(tensor)), torch.bool)

    def _on_isfinite(self, tensor: Tensor) -> Tensor:
        return self._lower(each(lambda v: isinstance(v, Symbol) or math.isfinite(v), self._lift(tensor)), torch.bool)

    def _on_tensor(self, data: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Tensor:
        return self._lower(self._lift(self._unwrap(data)), dtype or torch.get_default_dtype())

    def _unwrap(self, data: Any) -> Any:
        """Nested lists with their tensors turned into nested lists of elements."""
        if isinstance(data, (list, tuple)):
            return [self._unwrap(item) for item in data]
        return self._lift(data).tolist() if isinstance(data, Tensor) else data

    _on_as_tensor = _on_asarray = _on_tensor

    def tensor_of(self, array: np.ndarray[Any, Any]) -> Tensor:
        """The float64 tensor of an object array of numbers and symbols, as torch.from_numpy would make it."""
        return self._lower(array, torch.float64)

    def _on_full(self, size: Any, fill_value: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Tensor:
        return self._write(torch.empty(size, dtype=dtype or torch.get_default_dtype()), self._lift(fill_value))

    def _contests(self, tensor: Tensor, dim: int | None) -> tuple[list[list[Any]], tuple[int, ...]]:
        """The elements that compete with each other along ``dim``, and the shape that their contests have."""
        array = self._lift(tensor)
        if dim is None:
            return [list(array.flat)], ()
        columns = np.moveaxis(array, dim, 0)
        return [list(column) for column in columns.reshape(len(columns), -1).T], columns.shape[1:]

    def _best(
        self, tensor: Tensor, dim: int | None, keepdim: bool, largest: bool
    ) -> tuple[Tensor, np.ndarray[Any, Any]]:
        contests, rest = self._contests(tensor, dim)
        site = self.site("argmax" if largest else "argmin")
        index = [winner(self.leaf, contestants, largest, site) for contestants in contests]
        values = np.empty(len(index), dtype=object)
        for place, (contestants, chosen) in enumerate(zip(contests, index, strict=True)):
            values[place] = contestants[chosen]
        found, kept = torch.tensor(index).reshape(rest), values.reshape(rest)
        if keepdim and dim is not None:
            return found.unsqueeze(dim), np.expand_dims(kept, dim)
        return found, kept

    def _arg(self, tensor: Tensor, dim: int | None, keepdim: bool, largest: bool) -> Tensor:
        """The winners' places, each decided when it is looked at."""
        contests, rest = self._contests(tensor, dim)
        leaf, site = self.leaf, self.site("argmax" if largest else "argmin")
        found = np.empty(len(contests), dtype=object)
        for place, contestants in enumerate(contests):
            found[place] = Choice(leaf, lambda contestants=contestants: winner(leaf, contestants, largest, site))  # type: ignore[misc]
        index = self._lower(found.reshape(rest), torch.int64)
        return index.unsqueeze(dim) if keepdim and dim is not None else index

    def _on_argmax(self, tensor: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        return self._arg(tensor, dim, keepdim, True)

    def _on_argmin(self, tensor: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        return self._arg(tensor, dim, keepdim, False)

    def _extreme(self, tensor: Tensor, dim: Any, keepdim: bool, largest: bool) -> Any:
        if isinstance(dim, (Tensor, Symbol)):
            raise self.leaf.misunderstand("the larger or smaller of a draw and another tensor")
        index, values = self._best(tensor, dim, keepdim, largest)
        best = self._lower(values, tensor.dtype)
        return best if dim is None else (torch.return_types.max if largest else torch.return_types.min)((best, index))

    def _on_max(self, tensor: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
        return self._extreme(tensor, dim, keepdim, True)

    def _on_min(self, tensor: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
        return self._extreme(tensor, dim, keepdim, False)

    def _on_searchsorted(
        self,
        cells: Tensor,
        value: Any,
        *,
        out_int32: bool = False,
        right: bool = False,
        side: str | None = None,
        **_: Any,
    ) -> Tensor:
        if self._symbols_of(cells) is not None:
            raise self.leaf.misunderstand("torch.searchsorted in a sequence of draws")
        passed = operator.ge if right or side == "right" else operator.gt
        values = self._lift(value)
        rows = cells.reshape(-1, cells.shape[-1]).tolist()
        per = values.size // len(rows) if cells.dim() > 1 else values.size
        found = [sum(1 for edge in rows[place // per] if passed(item, edge)) for place, item in enumerate(values.flat)]
        return torch.tensor(found, dtype=torch.int32 if out_int32 else torch.int64).reshape(values.shape)

    def _on_bucketize(self, value: Any, cells: Tensor, *, right: bool = False, **kwargs: Any) -> Tensor:
        return self._on_searchsorted(cells, value, right=right, **kwargs)


def _pairs(
    function: Callable[[Any, Any], Any], left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    def one(a: Any, b: Any) -> Any:
        if isinstance(a, Choice) or isinstance(b, Choice):
            choice, other = (a, b) if isinstance(a, Choice) else (b, a)
            if function is operator.mul and not isinstance(other, Choice) and other in (0, 1):
                return choice if other == 1 else 0
            if function is operator.add and not isinstance(other, Choice) and other == 0:
                return choice
            a, b = (item.settle() if isinstance(item, Choice) else item for item in (a, b))
        if isinstance(a, Symbol) or isinstance(b, Symbol):
            return function(a, b)
        # Two numbers: torch's arithmetic, so that 0/0 is NaN and not an exception.
        result = function(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64))
        return result.item()

    a, b = np.broadcast_arrays(left, right)
    result = np.empty(a.shape, dtype=object)
    for place in np.ndindex(*a.shape):
        result[place] = one(a[place], b[place])
    return result


def _stand_in(item: Any) -> Any:
    """Something of the same type for torch's promotion rules."""
    if isinstance(item, Symbol):
        return 0.5
    if isinstance(item, np.ndarray):
        return torch.zeros(item.shape, dtype=torch.float64)
    return item


def _has_symbol(item: Any) -> bool:
    if isinstance(item, Symbol):
        return True
    if isinstance(item, dict):
        return any(map(_has_symbol, item.values()))
    return isinstance(item, (list, tuple)) and any(map(_has_symbol, item))
