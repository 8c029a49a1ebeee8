"""Answers a function's torch draws from a tape, with numbers, and keeps them in the order in which they were made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from distributions.tape import Draw, Tape, inverse_cdf
from verify.foreign.watch import Generators, state_of

_REFUSED = frozenset(
    "alpha_dropout cauchy_ dropout dropout_ feature_alpha_dropout feature_dropout geometric_ gumbel_softmax "
    "binomial log_normal_ manual_seed native_dropout poisson rand_like_ randint randint_like randn_like_ random_ "
    "randperm rrelu rrelu_ _sample_dirichlet _standard_gamma".split()
)


class NotCoupled(Exception):
    """A function whose draws cannot be followed; the message says why, in words that go on from its name."""


class Followed(TorchFunctionMode):
    """A mode under which ``rand``, ``randn``, ``normal``, ``bernoulli``, ``multinomial`` (one index a row), their
    ``_like`` forms and the in-place ``uniform_``, ``normal_``, ``exponential_``, ``bernoulli_``, and so all sampling of
    torch.distributions that is made of them, is a function of uniforms and normals of ``tape``.

    ``draws``: what the last ``call`` drew, in order, in float64 and of the shape that was asked for: an exponential is
    -log(1 - u), a coin u < prob, an index the inverse CDF of u. A function in float32 sees the uniforms rounded down to
    multiples of 2^-24, which is what torch gives it; ``single`` tells whether one of the calls drew in float32.

    Answering draws hides how a function seeds: one that starts every call from one seed repeats its noise, and here
    would not. So a call that changes the state of a global generator, brings a new torch.Generator to a later call, or
    sets one that it has is refused. Draws that never pass here (numpy, the standard library) are noticed in the same
    way. A refusal is kept in ``reason``, since the function may catch what is raised, and ``call`` raises NotCoupled.
    """

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape
        self.draws: list[Draw] = []
        self.reason = ""
        self.single = False
        self._calls = 0
        self._own: dict[int, tuple[torch.Generator, Any]] = {}

    @contextmanager
    def call(self) -> Iterator[None]:
        """One call of the function."""
        self.draws, before = [], Generators.snapshot()
        try:
            with self:
                yield
        except Exception as error:
            if not self.reason:
                self.reason = f"fails where its draws are answered ({type(error).__name__})"
            raise NotCoupled(self.reason) from error
        self._calls += 1
        changed = before.changed()
        if changed and not self.reason:
            self.reason = f"draws from {' and '.join(changed)} past the answers, or seeds it"
        if self.reason:
            raise NotCoupled(self.reason)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        draw = getattr(self, f"_draw_{name}", None)
        if draw is not None:
            self._see(kwargs.pop("generator", None))
            if kwargs.get("out") is not None:
                raise self._refuse(f"draws torch.{name} with out=")
            return draw(*args, **{key: item for key, item in kwargs.items() if key != "out"})
        if name in _REFUSED:
            raise self._refuse(f"draws torch.{name}, which is not answered")
        return func(*args, **kwargs)

    def _refuse(self, reason: str) -> NotCoupled:
        self.reason = self.reason or reason
        return NotCoupled(reason)

    def _see(self, generator: torch.Generator | None) -> None:
        """Notes a generator that the function has of its own, and leaves it in a state that it would not set."""
        if generator is None or generator is torch.default_generator:
            return
        known = self._own.get(id(generator))
        if known is None and self._calls:
            raise self._refuse("makes a torch.Generator in a later call")
        if known is not None and state_of(generator) != known[1]:
            raise self._refuse("seeds a torch.Generator of its own between draws")
        torch.rand((), generator=generator)
        self._own[id(generator)] = generator, state_of(generator)

    def _keep(self, name: str, kind: str, like: Tensor) -> Tensor:
        """The next noise, of the shape of ``like``."""
        if like.dtype not in (torch.float32, torch.float64) or like.device.type != "cpu":
            raise self._refuse(f"draws {name} in {like.dtype} on {like.device}")
        self.single |= like.dtype == torch.float32
        make = self.tape.uniform if kind == "uniform" else self.tape.normal
        self.draws.append(Draw(name, kind, make(name, like.shape)))
        return self.draws[-1].value

    def _uniform(self, name: str, like: Tensor) -> Tensor:
        value = self._keep(name, "uniform", like)
        return value.clone() if like.dtype == torch.float64 else ((value * 2**24).floor() * 2.0**-24).float()

    def _normal(self, name: str, like: Tensor, mean: Any = 0.0, std: Any = 1.0) -> Tensor:
        made: Tensor = mean + std * self._keep(name, "normal", like).to(like.dtype, copy=True)
        return made.to(like.dtype)

    def _draw_rand(self, *args: Any, **kwargs: Any) -> Tensor:
        like = torch.empty(*args, **kwargs)
        return self._uniform("rand", like).requires_grad_(like.requires_grad)

    def _draw_rand_like(self, other: Tensor, **kwargs: Any) -> Tensor:
        return self._uniform("rand_like", torch.empty_like(other, **kwargs))

    def _draw_randn(self, *args: Any, **kwargs: Any) -> Tensor:
        like = torch.empty(*args, **kwargs)
        return self._normal("randn", like).requires_grad_(like.requires_grad)

    def _draw_randn_like(self, other: Tensor, **kwargs: Any) -> Tensor:
        return self._normal("randn_like", torch.empty_like(other, **kwargs))

    def _draw_normal(self, mean: Any = 0.0, std: Any = 1.0, size: Sequence[int] | None = None, **kwargs: Any) -> Tensor:
        if size is not None:
            return self._normal("normal", torch.empty(size, **kwargs), mean, std)
        return self._normal("normal", torch.empty_like(mean + 0 * std), mean, std)

    def _draw_uniform_(self, tensor: Tensor, *ends: float, **named: float) -> Tensor:
        limits = {"from": 0.0, "to": 1.0} | dict(zip(("from", "to"), ends, strict=False)) | named
        return tensor.copy_(limits["from"] + (limits["to"] - limits["from"]) * self._uniform("uniform_", tensor))

    def _draw_normal_(self, tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
        return tensor.copy_(self._normal("normal_", tensor, mean, std))

    def _draw_exponential_(self, tensor: Tensor, lambd: float = 1.0) -> Tensor:
        return tensor.copy_(-torch.log1p(-self._keep("exponential_", "uniform", tensor)) / lambd)

    def _coins(self, name: str, given: Any, shape: Sequence[int]) -> Tensor:
        chance: Tensor = torch.as_tensor(given, dtype=torch.float64)
        if not bool(((chance >= 0) & (chance <= 1)).all()):
            raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true, but got false.")
        return self._keep(name, "uniform", torch.empty(tuple(shape), dtype=torch.float64)) < chance

    def _draw_bernoulli(self, tensor: Tensor, p: Any = None) -> Tensor:
        return self._coins("bernoulli", tensor if p is None else p, tensor.shape).to(tensor.dtype)

    def _draw_bernoulli_(self, tensor: Tensor, p: Any = 0.5) -> Tensor:
        return tensor.copy_(self._coins("bernoulli_", p, tensor.shape))

    def _draw_multinomial(self, weights: Tensor, num_samples: int, replacement: bool = False) -> Tensor:
        if num_samples != 1:
            raise self._refuse("draws torch.multinomial of several indices a row")
        rows = weights.double().reshape(-1, weights.shape[-1])
        index = inverse_cdf(rows, self._keep("multinomial", "uniform", rows[:, 0]))
        return index.reshape(*weights.shape[:-1], 1)
