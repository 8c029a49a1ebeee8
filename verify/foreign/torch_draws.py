"""Answers torch's draws with symbols, and carries the symbols through the tensor operations that follow.

Every call of torch's Python interface passes through ``__torch_function__``; one that touches a symbolic element is
answered by ``torch_ops`` or raises NotUnderstood.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verify.foreign.choice import Choice
from verify.foreign.grid import GridSymbol
from verify.foreign.leaf import Leaf
from verify.foreign.shadows import HALF, scalar
from verify.foreign.symbols import Symbol
from verify.foreign.torch_ops import Operations

_REFUSED = frozenset(
    "normal poisson binomial geometric_ cauchy_ log_normal_ rrelu rrelu_ dropout dropout_ alpha_dropout "
    "feature_dropout native_dropout randint_like_ randn_like_ _standard_gamma _sample_dirichlet".split()
)


class TorchDraws(Operations):
    """A mode that answers every torch draw from the room's leaf."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        raw = getattr(func, "__name__", "")
        draw = getattr(self, f"_draw_{raw}", None)
        if draw is not None:
            if kwargs.get("generator") is not None:
                self.room.see(kwargs["generator"])
            return draw(*args, **{k: v for k, v in kwargs.items() if k != "generator"})
        if raw in _REFUSED:
            raise self.leaf.misunderstand(f"torch.{raw} draws from a law without an exact account")
        if raw == "item" and self.lazy and args[0].numel() == 1 and self._involved(args[0]):
            item = self._on_item(args[0])  # the commonest use of a draw
            return item.settle() if isinstance(item, Choice) else item
        # Most calls touch no draw; this test is on the path of every one of them.
        if not self.lazy or not (any(map(self._involved, args)) or (kwargs and self._involved(kwargs))):
            result = func(*args, **kwargs)
            if isinstance(result, Tensor) and result.dtype in (torch.float32, *HALF):
                self.room.precisions.add(result.dtype)
            return result
        return self._symbolic(func, raw, args, kwargs)

    def _fill(self, tensor: Tensor, name: str, make: Callable[[str], Any]) -> Tensor:
        site = self.site(name)
        if tensor.dtype in (torch.float32, torch.float64) and tensor.numel() == 1:
            item = make(site)  # the commonest draw of all, without the machinery
            if isinstance(item, Symbol) and tensor.untyped_storage().nbytes() == tensor.element_size():
                return self._attach(tensor.fill_(math.nan), item)
            return self._write(tensor, scalar(item))
        array = np.empty(tensor.shape, dtype=object)
        for place in np.ndindex(*array.shape):
            array[place] = make(f"{site}{list(place)}" if place else site)
        return self._write(tensor, array)

    def _uniform(self, dtype: torch.dtype) -> Callable[[str], Symbol]:
        if dtype in HALF:
            self.room.precisions.add(dtype)
            values, weights = coarse_uniform(dtype)
            return lambda site: GridSymbol.draw(self.leaf, site, values, weights)
        return lambda site: Symbol.uniform(self.leaf, site)

    def _draw_rand(self, *args: Any, **kwargs: Any) -> Tensor:
        tensor = torch.empty(*args, **kwargs)
        return self._fill(tensor, "rand", self._uniform(tensor.dtype))

    def _draw_rand_like(self, other: Tensor, **kwargs: Any) -> Tensor:
        tensor = torch.empty_like(other, **kwargs)
        return self._fill(tensor, "rand_like", self._uniform(tensor.dtype))

    def _draw_uniform_(self, tensor: Tensor, *ends: float, **named: float) -> Tensor:
        limits = {"from": 0.0, "to": 1.0} | dict(zip(("from", "to"), ends, strict=False)) | named
        low, high = limits["from"], limits["to"]
        if tensor.dtype in HALF and (low, high) != (0.0, 1.0):
            raise self.leaf.misunderstand(f"uniform_({low}, {high}) in {tensor.dtype}, whose values are not modelled")
        make = self._uniform(tensor.dtype)
        return self._fill(tensor, "uniform_", lambda site: make(site) * (high - low) + low)

    def _draw_exponential_(self, tensor: Tensor, lambd: float = 1.0) -> Tensor:
        if tensor.dtype in HALF:
            raise self.leaf.misunderstand(f"exponential_ in {tensor.dtype}, whose grid is not modelled")
        return self._fill(tensor, "exponential_", lambda site: Symbol.exponential(self.leaf, site, float(lambd)))

    def _normals(self, tensor: Tensor, name: str, mean: float = 0.0, std: float = 1.0) -> Tensor:
        return self._fill(tensor, name, lambda site: Symbol.normal(self.leaf, site) * std + mean)

    def _draw_randn(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._normals(torch.empty(*args, **kwargs), "randn")

    def _draw_randn_like(self, other: Tensor, **kwargs: Any) -> Tensor:
        return self._normals(torch.empty_like(other, **kwargs), "randn_like")

    def _draw_normal_(self, tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
        return self._normals(tensor, "normal_", float(mean), float(std))

    def _integers(self, tensor: Tensor, low: int, high: int, name: str) -> Tensor:
        if high - low > 4096:
            raise self.leaf.misunderstand(f"torch.{name} over {high - low} values")
        return self._fill(tensor, name, lambda site: low + self.leaf.decide(site, (1 / (high - low),) * (high - low)))

    def _draw_randint(self, *args: Any, **kwargs: Any) -> Tensor:
        numbers = [int(item) for item in args if isinstance(item, (int, Tensor))]
        low, high = (0, *numbers)[-2:] if len(numbers) else (0, 0)
        low, high = int(kwargs.pop("low", low)), int(kwargs.pop("high", high))
        size = kwargs.pop("size", None) or next(item for item in args if isinstance(item, (tuple, list)))
        return self._integers(torch.empty(size, **{"dtype": torch.int64, **kwargs}), low, high, "randint")

    def _draw_randint_like(self, other: Tensor, *ends: int, **kwargs: Any) -> Tensor:
        low, high = (0, *ends)[-2:]
        low, high = int(kwargs.pop("low", low)), int(kwargs.pop("high", high))
        return self._integers(torch.empty_like(other, **kwargs), low, high, "randint_like")

    def _draw_random_(self, tensor: Tensor, *ends: int) -> Tensor:
        if not ends:
            raise self.leaf.misunderstand("torch.random_ over the whole range of a dtype")
        low, high = (0, *ends)[-2:]
        return self._integers(tensor, low, high, "random_")

    def _draw_randperm(self, n: int, **kwargs: Any) -> Tensor:
        if n > 8:
            raise self.leaf.misunderstand(f"torch.randperm of {n}")
        return torch.tensor(permutation(self.leaf, n, self.site("randperm")), **{"dtype": torch.int64, **kwargs})

    def _draw_multinomial(self, weights: Tensor, num_samples: int, replacement: bool = False, **kwargs: Any) -> Tensor:
        if self._symbols_of(weights) is not None:
            raise self.leaf.misunderstand("torch.multinomial with random weights")
        rows = weights.detach().reshape(-1, weights.shape[-1]).tolist()
        for row in rows:
            if not all(0 <= weight < math.inf for weight in row):
                raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
            if not sum(row) > 0:
                raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
        if not replacement and num_samples > weights.shape[-1]:
            raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
        site = self.site("multinomial")
        if num_samples == 1 and len(rows) == 1:
            choice = Choice(self.leaf, lambda: categoricals(self.leaf, rows[0], 1, True, site)[0])
            tensor = torch.full((*weights.shape[:-1], 1), torch.iinfo(torch.int64).min)
            return self._attach(tensor, choice)
        if num_samples == 1 or replacement:
            leaf = self.leaf
            chosen = np.empty((len(rows), num_samples), dtype=object)
            for place in np.ndindex(*chosen.shape):
                row = rows[place[0]]
                chosen[place] = Choice(leaf, lambda row=row: categoricals(leaf, row, 1, True, site)[0])  # type: ignore[misc]
            return self._lower(chosen.reshape(*weights.shape[:-1], num_samples), torch.int64)
        drawn = [categoricals(self.leaf, row, num_samples, replacement, site) for row in rows]
        return torch.tensor(drawn).reshape(*weights.shape[:-1], num_samples)

    def _draw_bernoulli(self, tensor: Tensor, p: float | None = None, **kwargs: Any) -> Tensor:
        return self._coins(torch.empty_like(tensor), tensor if p is None else p, "bernoulli")

    def _draw_bernoulli_(self, tensor: Tensor, p: Any = 0.5, **kwargs: Any) -> Tensor:
        return self._coins(tensor, p, "bernoulli_")

    def _coins(self, tensor: Tensor, prob: Any, name: str) -> Tensor:
        if self._involved(prob):
            raise self.leaf.misunderstand(f"torch.{name} with a random probability")
        chances = torch.as_tensor(prob, dtype=torch.float64).expand(tensor.shape).clone()
        if bool(((chances < 0) | (chances > 1) | chances.isnan()).any()):
            raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true, but got false.")
        site = self.site(name)
        drawn = [self.leaf.decide(site, (1.0 - c, c)) for c in chances.flatten().tolist()]
        return self._write(tensor, np.array(drawn, dtype=object).reshape(tuple(tensor.shape)))


@cache
def coarse_uniform(dtype: torch.dtype) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The values of torch's uniform in bfloat16 or float16, and their probabilities.

    Older releases fill it from 8 or 11 random bits: the points k / 256 or k / 2048. Newer ones round a fine uniform to
    the nearest value, and what rounds up to 1 becomes 0, so that 0 has probability 2**-9 or 2**-12. Which of the two
    the installed release does is seen from draws of a generator of its own.
    """
    bits = 8 if dtype is torch.bfloat16 else 11
    drawn = torch.rand(1024, dtype=dtype, generator=torch.Generator().manual_seed(0)).double() * 2**bits
    if bool((drawn == drawn.round()).all()):
        return np.arange(2**bits) / 2**bits, np.full(2**bits, 2.0**-bits)
    ones = torch.tensor(1.0, dtype=dtype).view(torch.int16)
    values = torch.arange(int(ones) + 1, dtype=torch.int16).view(dtype).double().numpy()
    values = values[(values == 0) | (values >= 2.0**-24)]  # the fine uniform has 24 bits
    edges = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2, [1.0]])
    weights = np.diff(edges)
    weights[0] += weights[-1]
    return values[:-1], weights[:-1]


def permutation(leaf: Leaf, n: int, site: str) -> list[int]:
    """A uniform permutation of range(n)."""
    return categoricals(leaf, [1.0] * n, n, False, site)


def categoricals(leaf: Leaf, weights: Sequence[float], count: int, replacement: bool, site: str) -> list[int]:
    """``count`` indices drawn in proportion to ``weights``, one after another."""
    left = list(weights)
    drawn: list[int] = []
    for _ in range(count):
        total = math.fsum(left)
        if total <= 0:
            raise RuntimeError(
                "invalid multinomial distribution (with replacement=False, not enough non-negative category)"
            )
        index = leaf.decide(site, tuple(w / total for w in left))
        drawn.append(index)
        if not replacement:
            left[index] = 0.0
    return drawn
