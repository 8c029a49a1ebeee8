"""Lazy randomness: a draw is an interval of a uniform that every comparison splits in two.

A ``Symbol`` is a monotone function of one uniform on [0, 1). It is never a number: comparing it with a number asks its
``Leaf`` on which side the uniform lies, and the leaf answers by branching, with the exact probability of each side. A
uniform that is compared twice, or seen through log, 1 - u or an inverse CDF, is thereby enumerated exactly. Whatever
would need the number itself raises NotUnderstood.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from verify.foreign import steps
from verify.foreign.leaf import Atom, Interruption, Leaf
from verify.foreign.steps import INF, Step

# What a symbol is, up to a rising map common to all contestants of a race. E is a standard exponential.
#   ("uniform", a, b): a * U + b      ("power", c, k): c * E**k      ("log", a, b): a * log(E) + b
#   ("root", r): exp(-r * E)
Shape = tuple[Any, ...] | None


class Symbol:
    """A monotone function of one atom. Arithmetic with numbers gives symbols; comparisons give booleans."""

    __slots__ = ("atom", "high", "low", "rising", "shape", "steps")
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, atom: Atom, steps: tuple[Step, ...], low: float, high: float, rising: bool, shape: Shape
    ) -> None:
        self.atom, self.steps, self.low, self.high, self.rising, self.shape = atom, steps, low, high, rising, shape

    @staticmethod
    def uniform(leaf: Leaf, site: str) -> Symbol:
        return Symbol(Atom(leaf, site), (), 0.0, 1.0, True, ("uniform", 1.0, 0.0))

    @staticmethod
    def exponential(leaf: Leaf, site: str, rate: float = 1.0) -> Symbol:
        drawn: Symbol = -(1 - Symbol.uniform(leaf, site)).log() / rate
        return drawn

    @staticmethod
    def gumbel(leaf: Leaf, site: str) -> Symbol:
        return -Symbol.exponential(leaf, site).log()

    @staticmethod
    def normal(leaf: Leaf, site: str) -> Symbol:
        return Symbol.uniform(leaf, site)._then(steps.PROBIT, None)

    def _then(self, step: Step, shape: Shape) -> Symbol:
        self.atom.check()
        ends = sorted((step.apply(self.low), step.apply(self.high)))
        return Symbol(self.atom, (*self.steps, step), ends[0], ends[1], self.rising == step.rising, shape)

    def _refuse(self, what: str) -> Interruption:
        return self.atom.leaf.misunderstand(f"{self.atom.site}: {what}")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Lets torch take a symbol for a tensor, so that the call reaches the mode that understands it."""
        return NotImplemented

    # --- comparisons -------------------------------------------------------------------------------------------
    def under(self, bar: float, strict: bool) -> bool:
        """Is the value < bar (strict) or <= bar?"""
        if bar != bar:
            return False
        cut, rising = self._cut(bar, strict)
        return self.atom.below(cut) if rising else not self.atom.below(cut)

    def value(self, uniform: float) -> float:
        """The number that this symbol would be, were its uniform this one."""
        for step in self.steps:
            uniform = step.apply(uniform)
        return uniform

    def chance_under(self, bar: float) -> float:
        """P(value < bar) for a draw not used before, without branching."""
        cut, rising = self._cut(bar, True)
        below = min(max(cut, 0.0), 1.0)
        return below if rising else 1.0 - below

    def _cut(self, bar: float, strict: bool) -> tuple[float, bool]:
        """The event "value < bar" (or <=) as one on the uniform: below the cut if the flag is True, above it if not."""
        rising = True
        for step in reversed(self.steps):
            if bar in (INF, -INF):
                break
            # `rising` says whether the event reads "x below the bar" at this depth; a falling step turns it round,
            # and an event "f(x) > c" is the complement of "f(x) <= c".
            if rising:
                bar, strict = step.pull(bar, strict)
            else:
                bar, strict = step.pull(bar, not strict)
                strict = not strict
            rising = rising == step.rising
        return bar, rising  # an infinite bar is everything or nothing, whatever the steps that remain

    def __lt__(self, other: Any) -> Any:
        return self._compare(other, True, False)

    def __le__(self, other: Any) -> Any:
        return self._compare(other, False, False)

    def __gt__(self, other: Any) -> Any:
        return self._compare(other, False, True)

    def __ge__(self, other: Any) -> Any:
        return self._compare(other, True, True)

    def _compare(self, other: Any, strict: bool, negate: bool) -> Any:
        if isinstance(other, Symbol):
            if other is self or (other.atom is self.atom and other.steps == self.steps):
                return not strict if not negate else strict
            raise self._refuse(f"compared with another draw ({other.atom.site})")
        if not is_number(other):
            return NotImplemented
        bar = float(other)
        if bar != bar:
            return False
        return self.under(bar, strict) != negate

    def __eq__(self, other: Any) -> Any:
        if isinstance(other, Symbol):
            return other is self or (other.atom is self.atom and other.steps == self.steps)
        if not is_number(other):
            return NotImplemented
        # Not above and not below: of probability zero for a strictly monotone symbol, decided for a clamped one.
        return bool(self <= other) and not bool(self < other)

    def __ne__(self, other: Any) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __bool__(self) -> bool:
        return not self == 0.0

    # --- conversions -------------------------------------------------------------------------------------------
    def _whole(self) -> int:
        """The integer part towards minus infinity, by branching over the integers in reach."""
        low, high = self.low, self.high
        if math.isinf(low) or math.isinf(high) or high - low > 4096:
            raise self._refuse("made an integer of too wide a range")
        bottom, top = math.floor(low), math.floor(high)
        while bottom < top:  # bisection: few comparisons when the range is wide
            middle = (bottom + top + 1) // 2
            if self.under(float(middle), True):
                top = middle - 1
            else:
                bottom = middle
        return bottom

    def __floor__(self) -> int:
        return self._whole()

    def __ceil__(self) -> int:
        return -(-self)._whole()

    def __trunc__(self) -> int:
        return self._whole() if self.low >= 0 or not self.under(0.0, True) else self.__ceil__()

    __int__ = __trunc__

    def __round__(self, digits: int | None = None) -> int:
        if digits is not None:
            raise self._refuse("rounded to digits")
        return int((self + 0.5)._whole())

    def __float__(self) -> float:
        raise self._refuse(
            "made a plain float (float(u), math functions imported by name); keep the tensor, or use .item()"
        )

    __index__ = None
    __complex__ = __float__

    def __repr__(self) -> str:
        return f"<{self.atom.site}>"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __copy__(self) -> Symbol:
        return self

    def __deepcopy__(self, memo: Any) -> Symbol:
        return self

    def item(self) -> Symbol:
        return self

    # --- arithmetic --------------------------------------------------------------------------------------------
    def __add__(self, other: Any) -> Any:
        if isinstance(other, Symbol):
            raise self._refuse(f"added to another draw ({other.atom.site})")
        if not is_number(other):
            return NotImplemented
        by = float(other)
        if by == 0.0:
            return self
        if by != by or by in (INF, -INF):
            return by
        if abs(by) < 1e-15 and self.low >= 0 and self.shape is not None:
            # The eps in log(u + eps): no float64 near 1 feels it, and what feels it has probability about eps.
            self.atom.leaf.error += 1e-15
            return self
        match self.shape:
            case ("uniform", a, b):
                shape: Shape = ("uniform", a, b + by)
            case ("log", a, b):
                shape = ("log", a, b + by)
            case _:
                shape = None
        return self._then(steps.add(by), shape)

    __radd__ = __add__

    def __neg__(self) -> Symbol:
        turned: Symbol = self * -1.0
        return turned

    def __pos__(self) -> Symbol:
        return self

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, Symbol):
            raise self._refuse(f"subtracted from another draw ({other.atom.site})")
        return self + -float(other) if is_number(other) else NotImplemented

    def __rsub__(self, other: Any) -> Any:
        return (-self) + other

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Symbol):
            raise self._refuse(f"multiplied with another draw ({other.atom.site})")
        if not is_number(other):
            return NotImplemented
        by = float(other)
        if by == 1.0:
            return self
        if by != by:
            return by
        if by == 0.0:
            return 0.0
        if by in (INF, -INF):
            if self.low < 0 < self.high:
                raise self._refuse("multiplied by infinity")
            return by if self.low >= 0 else -by
        match self.shape:
            case ("uniform", a, b):
                shape: Shape = ("uniform", a * by, b * by)
            case ("power", c, k):
                shape = ("power", c * by, k)
            case ("log", a, b):
                shape = ("log", a * by, b * by)
            case _:
                shape = None
        return self._then(steps.mul(by), shape)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, Symbol):
            raise self._refuse(f"divided by another draw ({other.atom.site})")
        if not is_number(other):
            return NotImplemented
        by = float(other)
        if by == 0.0:
            if self.low < 0 < self.high:
                raise self._refuse("divided by zero")
            return math.copysign(INF, by) * (1 if self.low >= 0 else -1)
        if by in (INF, -INF):
            return 0.0
        # Dividing by the number itself keeps the cut exact where the reciprocal would be rounded twice.
        scaled = self * (1.0 / by)
        if isinstance(scaled, Symbol) and scaled is not self:
            step = Step(by > 0, lambda x: x / by, lambda c, s: (c * by, s))
            return Symbol(self.atom, (*self.steps, step), scaled.low, scaled.high, scaled.rising, scaled.shape)
        return scaled

    def __rtruediv__(self, other: Any) -> Any:
        return self.reciprocal() * other if is_number(other) else NotImplemented

    def reciprocal(self) -> Symbol:
        if self.low < 0 < self.high:
            raise self._refuse("inverted across zero")
        match self.shape:
            case ("power", c, k):
                shape: Shape = ("power", 1.0 / c, -k)
            case _:
                shape = None
        return self._then(steps.reciprocal(self.low >= 0), shape)

    def __pow__(self, other: Any) -> Any:
        if not is_number(other):
            raise self._refuse("raised to a power that is no number")
        exponent = float(other)
        if exponent == 1.0:
            return self
        if exponent == 0.0:
            return 1.0
        if exponent in (INF, -INF) or exponent != exponent:
            if self.low >= 0 and self.high <= 1 and exponent == exponent:
                return 0.0 if exponent > 0 else INF
            raise self._refuse("raised to an infinite power")
        if self.low < 0:
            raise self._refuse("a power of a draw that may be negative")
        match self.shape:
            case ("power", c, k) if c > 0:
                shape: Shape = ("power", c**exponent, k * exponent)
            case ("root", r):
                shape = ("root", r * exponent)
            case ("uniform", 1.0, 0.0):
                shape = ("root", exponent)
            case ("uniform", -1.0, 1.0):
                shape = ("root", exponent)
            case _:
                shape = None
        return self._then(steps.raise_to(exponent), shape)

    def __rpow__(self, other: Any) -> Any:
        return (self * math.log(float(other))).exp()

    def __abs__(self) -> Symbol:
        if self.low >= 0:
            return self
        if self.high <= 0:
            return -self
        raise self._refuse("absolute value across zero")

    def __mod__(self, other: Any) -> Any:
        raise self._refuse("taken modulo")

    def __floordiv__(self, other: Any) -> Any:
        return (self / other)._whole()

    # --- named functions: numpy calls these on object arrays ---------------------------------------------------
    def log(self, base: float = math.e) -> Symbol:
        if self.low < -1e-15:  # a rounding error below zero has no mass
            raise self._refuse("log of a draw that may be negative")
        match self.shape:
            case ("uniform", 1.0, 0.0) | ("uniform", -1.0, 1.0):
                shape: Shape = ("power", -1.0, 1.0)
            case ("power", c, k) if c > 0:
                shape = ("log", k, math.log(c))
            case ("root", r):
                shape = ("power", -r, 1.0)
            case _:
                shape = None
        if shape is not None and base != math.e:
            by = 1.0 / math.log(base)
            shape = (
                (shape[0], shape[1] * by, shape[2] * by) if shape[0] == "log" else (shape[0], shape[1] * by, shape[2])
            )
        return self._then(steps.log(base), shape)

    def log2(self) -> Symbol:
        return self.log(2.0)

    def log10(self) -> Symbol:
        return self.log(10.0)

    def log1p(self) -> Symbol:
        shape: Shape = ("power", -1.0, 1.0) if self.shape in (("uniform", -1.0, 0.0), ("uniform", 1.0, -1.0)) else None
        return self._then(steps.LOG1P, shape)

    def exp(self) -> Symbol:
        match self.shape:
            case ("log", a, b):
                shape: Shape = ("power", math.exp(b), a)
            case ("power", c, 1.0) if c < 0:
                shape = ("root", -c)
            case _:
                shape = None
        return self._then(steps.EXP, shape)

    def expm1(self) -> Symbol:
        return self._then(steps.EXPM1, None)

    def sqrt(self) -> Symbol:
        result: Symbol = self**0.5
        return result

    def square(self) -> Symbol:
        result: Symbol = self**2.0
        return result

    def floor(self) -> int:
        return self._whole()

    def ceil(self) -> int:
        return self.__ceil__()

    def rint(self) -> int:
        return self.__round__()

    def sigmoid(self) -> Symbol:
        return self._then(steps.SIGMOID, None)

    def probit(self) -> Symbol:
        if not (self.low >= 0 and self.high <= 1):
            raise self._refuse("normal quantile outside [0, 1]")
        return self._then(steps.PROBIT, None)

    def normal_cdf(self) -> Symbol:
        return self._then(steps.NORMAL_CDF, None)

    def clip(self, low: float | None = None, high: float | None = None) -> Symbol:
        """Clamped to [low, high]."""
        low, high = -INF if low is None else float(low), INF if high is None else float(high)
        if low <= self.low and high >= self.high:
            return self
        if self.atom.fresh and (acts := self.chance_under(low) + 1.0 - self.chance_under(high)) < 1e-9:
            self.atom.leaf.error += acts  # a guard against log(0): the rest of the chain may ignore it, at this price
            return self
        return self._then(steps.clamp(low, high), None)

    def cast(self, dtype: torch.dtype) -> Any:
        if dtype in (torch.float32, torch.float64):
            return self
        if dtype in (torch.bfloat16, torch.float16):
            return self._then(steps.cast(dtype), None)
        if dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
            return int(self)
        if dtype is torch.bool:
            return bool(self)
        raise self._refuse(f"cast to {dtype}")


def is_number(value: Any) -> bool:
    """A number of Python or numpy, zero-dimensional arrays included."""
    if isinstance(value, (int, float, np.number, np.bool_)):
        return True
    return isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype != object
