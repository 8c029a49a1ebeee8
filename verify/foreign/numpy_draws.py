"""Answers the draws of numpy and of the standard library's ``random`` with symbols."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from verify.foreign.leaf import Leaf
from verify.foreign.race import winner
from verify.foreign.symbols import Symbol
from verify.foreign.torch_draws import TorchDraws, categoricals, permutation

Array = np.ndarray[Any, Any]


class LazyArray(Array):
    """An object array of numbers and symbols, for which argmax and argmin are races and astype keeps the symbols."""

    def argmax(self, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
        return self._race(True, axis, out, keepdims)

    def argmin(self, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
        return self._race(False, axis, out, keepdims)

    def _race(self, largest: bool, axis: Any, out: Any, keepdims: Any) -> Any:
        plain = np.asarray(self)
        leaf = next((item.atom.leaf for item in plain.flat if isinstance(item, Symbol)), None)
        if leaf is None:
            plain = plain.astype(float) if plain.dtype == object else plain
            return (plain.argmax if largest else plain.argmin)(axis=axis, out=out, keepdims=keepdims)
        if out is not None or keepdims:
            raise leaf.misunderstand("numpy argmax(out=, keepdims=) of a draw")
        if axis is None:
            return winner(leaf, list(plain.flat), largest)
        columns = np.moveaxis(plain, axis, 0)
        flat = columns.reshape(len(columns), -1)
        return np.array([winner(leaf, list(column), largest) for column in flat.T]).reshape(columns.shape[1:])

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        if np.dtype(dtype).kind in "fO":
            return self
        if np.dtype(dtype).kind in "iu":
            return np.array([int(item) for item in self.flat]).reshape(self.shape).astype(dtype)
        return super().astype(dtype, *args, **kwargs)


def lazy_array(array: Array) -> Any:
    """A LazyArray where a symbol is inside, a plain array otherwise."""
    if any(isinstance(item, Symbol) for item in array.flat):
        return array.view(LazyArray)
    return np.array(array.tolist())


class NumpyDraws:
    """The draws by name, for ``numpy.random`` (the module and RandomState) and for Generator alike."""

    def __init__(self, torch_draws: TorchDraws) -> None:
        self._torch = torch_draws

    @property
    def leaf(self) -> Leaf:
        return self._torch.leaf

    def _fill(self, size: Any, name: str, make: Callable[[str], Any]) -> Any:
        site = self._torch.site(name)
        self._torch.lazy = True
        if size is None:
            return make(site)
        shape = (int(size),) if np.ndim(size) == 0 else tuple(map(int, size))
        array = np.empty(shape, dtype=object)
        for place in np.ndindex(*shape):
            array[place] = make(f"{site}{list(place)}")
        return lazy_array(array) if array.size else np.zeros(shape)

    def _broadcast(self, size: Any, name: str, make: Callable[..., Any], *parameters: Any) -> Any:
        if all(np.ndim(item) == 0 for item in parameters):
            return self._fill(size, name, lambda site: make(site, *map(float, parameters)))
        arrays = np.broadcast_arrays(*parameters, *([np.empty(size)] if size is not None else []))[: len(parameters)]
        site, array = self._torch.site(name), np.empty(arrays[0].shape, dtype=object)
        self._torch.lazy = True
        for place in np.ndindex(*array.shape):
            array[place] = make(f"{site}{list(place)}", *(float(item[place]) for item in arrays))
        return lazy_array(array)

    # uniform
    def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        if out is not None:
            raise self.leaf.misunderstand("numpy random(out=...)")
        return self._fill(size, "numpy.random", lambda site: Symbol.uniform(self.leaf, site))

    def random_sample(self, size: Any = None) -> Any:
        return self.random(size)

    sample = ranf = random_sample

    def rand(self, *shape: int) -> Any:
        return self.random(shape or None)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return self._broadcast(
            size, "numpy.uniform", lambda site, a, b: Symbol.uniform(self.leaf, site) * (b - a) + a, low, high
        )

    # other continuous laws with a quantile function
    def standard_exponential(
        self, size: Any = None, dtype: Any = np.float64, method: str = "zig", out: Any = None
    ) -> Any:
        return self.exponential(1.0, size)

    def exponential(self, scale: Any = 1.0, size: Any = None) -> Any:
        return self._broadcast(
            size, "numpy.exponential", lambda site, s: Symbol.exponential(self.leaf, site) * s, scale
        )

    def gumbel(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return self._broadcast(
            size, "numpy.gumbel", lambda site, a, s: Symbol.gumbel(self.leaf, site) * s + a, loc, scale
        )

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return self._broadcast(
            size, "numpy.normal", lambda site, a, s: Symbol.normal(self.leaf, site) * s + a, loc, scale
        )

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return self.normal(0.0, 1.0, size)

    def randn(self, *shape: int) -> Any:
        return self.normal(0.0, 1.0, shape or None)

    # finite
    def integers(
        self, low: int, high: int | None = None, size: Any = None, dtype: Any = np.int64, endpoint: bool = False
    ) -> Any:
        start, stop = (0, int(low)) if high is None else (int(low), int(high))
        count = stop - start + int(endpoint)
        if count > 4096:
            raise self.leaf.misunderstand(f"numpy integers over {count} values")
        drawn = self._fill(size, "numpy.integers", lambda site: start + self.leaf.decide(site, (1 / count,) * count))
        return np.int64(drawn) if size is None else np.asarray(drawn).astype(dtype)

    def randint(self, low: int, high: int | None = None, size: Any = None, dtype: Any = int) -> Any:
        return self.integers(low, high, size, dtype)

    def choice(
        self, a: Any, size: Any = None, replace: bool = True, p: Any = None, axis: int = 0, shuffle: bool = True
    ) -> Any:
        items = np.arange(int(a)) if np.ndim(a) == 0 else np.asarray(a)
        weights = [1.0] * len(items) if p is None else np.asarray(p, dtype=float).tolist()
        if len(weights) != len(items):
            raise ValueError("'a' and 'p' must have same size")
        if any(w != w for w in weights):
            raise ValueError("probabilities contain NaN")
        if any(w < 0 for w in weights):
            raise ValueError("probabilities are not non-negative")
        # numpy's own tolerance: what it would refuse is refused here too.
        if abs(math.fsum(weights) - (1.0 if p is not None else len(items))) > math.sqrt(np.finfo(np.float64).eps):
            raise ValueError("probabilities do not sum to 1")
        shape = () if size is None else ((int(size),) if np.ndim(size) == 0 else tuple(map(int, size)))
        drawn = categoricals(self.leaf, weights, math.prod(shape), replace, self._torch.site("numpy.choice"))
        return items[drawn[0]] if size is None else items[np.array(drawn, dtype=int)].reshape(*shape, *items.shape[1:])

    def multinomial(self, n: int, pvals: Any, size: Any = None) -> Any:
        rows = 1 if size is None else int(np.prod(size))
        site, weights = self._torch.site("numpy.multinomial"), np.asarray(pvals, dtype=float).tolist()
        counts = [
            np.bincount(categoricals(self.leaf, weights, int(n), True, site), minlength=len(weights))
            for _ in range(rows)
        ]
        return counts[0] if size is None else np.array(counts).reshape(*np.atleast_1d(size), len(weights))

    def binomial(self, n: Any, p: Any, size: Any = None) -> Any:
        def one(site: str, count: float, chance: float) -> int:
            return sum(self.leaf.decide(site, (1.0 - chance, chance)) for _ in range(int(count)))

        return np.asarray(self._broadcast(size, "numpy.binomial", one, n, p))[()]

    def permutation(self, x: Any, axis: int = 0) -> Any:
        items = np.arange(int(x)) if np.ndim(x) == 0 else np.array(x)
        if len(items) > 8:
            raise self.leaf.misunderstand(f"numpy permutation of {len(items)}")
        return items[permutation(self.leaf, len(items), self._torch.site("numpy.permutation"))]

    def shuffle(self, x: Any, axis: int = 0) -> None:
        x[:] = [x[i] for i in permutation(self.leaf, len(x), self._torch.site("numpy.shuffle"))]


class StdlibDraws:
    """The draws of ``random`` and of random.Random."""

    def __init__(self, torch_draws: TorchDraws) -> None:
        self._torch = torch_draws

    @property
    def leaf(self) -> Leaf:
        return self._torch.leaf

    def _symbol(self, name: str, make: Callable[[Leaf, str], Symbol]) -> Symbol:
        self._torch.lazy = True
        return make(self.leaf, self._torch.site(name))

    def random(self) -> Symbol:
        return self._symbol("random.random", Symbol.uniform)

    def uniform(self, a: float, b: float) -> Any:
        return self._symbol("random.uniform", Symbol.uniform) * (b - a) + a

    def expovariate(self, lambd: float = 1.0) -> Any:
        return self._symbol("random.expovariate", Symbol.exponential) / lambd

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> Any:
        return self._symbol("random.gauss", Symbol.normal) * sigma + mu

    normalvariate = gauss

    def _below(self, count: int, name: str) -> int:
        if not 0 < count <= 4096:
            raise self.leaf.misunderstand(f"{name} over {count} values")
        return self.leaf.decide(self._torch.site(name), (1 / count,) * count)

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        values = range(start) if stop is None else range(start, stop, step)
        return values[self._below(len(values), "random.randrange")]

    def randint(self, a: int, b: int) -> int:
        return a + self._below(b - a + 1, "random.randint")

    def getrandbits(self, k: int) -> int:
        return self._below(2**k, "random.getrandbits")

    def choice(self, seq: Sequence[Any]) -> Any:
        return seq[self._below(len(seq), "random.choice")]

    def choices(
        self, population: Sequence[Any], weights: Any = None, *, cum_weights: Any = None, k: int = 1
    ) -> list[Any]:
        if weights is None:
            weights = (
                np.diff(np.asarray(cum_weights, float), prepend=0.0)
                if cum_weights is not None
                else [1.0] * len(population)
            )
        weights = [float(w) for w in weights]
        if math.fsum(weights) <= 0 or any(w < 0 for w in weights):
            raise ValueError("Total of weights must be greater than zero")
        drawn = categoricals(self.leaf, weights, k, True, self._torch.site("random.choices"))
        return [population[i] for i in drawn]

    def sample(self, population: Sequence[Any], k: int, *, counts: Any = None) -> list[Any]:
        if counts is not None:
            raise self.leaf.misunderstand("random.sample(counts=...)")
        drawn = categoricals(self.leaf, [1.0] * len(population), k, False, self._torch.site("random.sample"))
        return [population[i] for i in drawn]

    def shuffle(self, x: Any) -> None:
        x[:] = [x[i] for i in permutation(self.leaf, len(x), self._torch.site("random.shuffle"))]


def random_names() -> list[str]:
    """Every draw of the standard library's module, answered or not."""
    skipped = {"Random", "SystemRandom", "getstate", "setstate", "seed"}
    return [name for name in random.__all__ if name not in skipped]
