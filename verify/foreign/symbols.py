"""Lazy randomness: a draw is an interval of a uniform that every comparison splits in two.

A ``Symbol`` is a monotone function of one uniform on [0, 1). It is never a number: comparing it with a number asks its
``Leaf`` on which side the uniform lies, and the leaf answers by branching, with the exact probability of each side. A
uniform that is compared twice, or seen through log, 1 - u or an inverse CDF, is thereby enumerated exactly. Whatever
would need the number itself raises NotUnderstood.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.integrate import quad
from scipy.special import ndtr, ndtri

INF = math.inf


class Interruption(BaseException):
    """Ends a run from inside. Not an Exception, so that the code under test does not swallow it by accident."""


class NotUnderstood(Interruption):
    """The code did something with a draw that the enumeration has no exact account of."""


class Pruned(Interruption):
    """The run's probability fell below the smallest that is followed."""


@dataclass
class Decision:
    """A branching: where, which branch was taken, the branches' probabilities."""

    site: str
    taken: int
    probs: tuple[float, ...]


@dataclass
class Leaf:
    """One run of the code: the branches prescribed to it, the decisions it met, its probability."""

    prescribed: tuple[int, ...]
    min_mass: float
    decisions: list[Decision] = field(default_factory=list)
    mass: float = 1.0
    failure: Interruption | None = None
    error: float = 0.0
    closed: bool = False
    _guide: int = 1
    current: ClassVar[Leaf | None] = None

    def fail(self, failure: Interruption) -> Interruption:
        """Remember the interruption even if the code under test swallows it; to be raised by the caller."""
        self.failure = self.failure or failure
        return failure

    def misunderstand(self, what: str) -> Interruption:
        return self.fail(NotUnderstood(what))

    def decide(self, site: str, probs: Sequence[float]) -> int:
        """The branch taken at ``site``; ``probs`` sum to one. A single possible branch is no decision."""
        if self.closed:
            raise (Leaf.current or self).misunderstand(f"{site}: a draw kept from an earlier call is used again")
        possible = [i for i, mass in enumerate(probs) if mass > 0]
        if len(possible) == 1:
            return possible[0]
        at = len(self.decisions)
        if at < len(self.prescribed):
            taken = self.prescribed[at]
            if taken >= len(probs) or not probs[taken] > 0:
                raise self.misunderstand(f"{site}: the same draws led to different branches; the code keeps a state")
        else:
            taken = self._choose(possible, probs)
            if self.mass * probs[taken] < self.min_mass:
                raise self.fail(Pruned(site))
        self.decisions.append(Decision(site, taken, tuple(probs)))
        self.mass *= probs[taken]
        return taken


    def _choose(self, possible: Sequence[int], probs: Sequence[float]) -> int:
        """The branch to follow first: with the branches' own probabilities, so that a loop that ends, ends here too."""
        self._guide = (self._guide * 48_271) % 0x7FFF_FFFF  # the "minimal standard" generator of Park and Miller
        left = self._guide / 0x7FFF_FFFF
        for branch in possible:
            left -= probs[branch]
            if left < 0:
                return branch
        return max(possible, key=lambda i: probs[i])


class Atom:
    """One uniform on [0, 1), known so far to lie in [low, high). ``grid`` > 0: only the points k / grid, of which
    those in ``alive`` remain.
    """

    __slots__ = ("alive", "grid", "high", "leaf", "low", "site", "spent")

    def __init__(self, leaf: Leaf, site: str, grid: int = 0) -> None:
        self.leaf, self.site, self.grid = leaf, site, grid
        self.low, self.high = 0.0, 1.0
        self.spent = False
        self.alive = np.ones(grid, dtype=bool) if grid else None

    @property
    def fresh(self) -> bool:
        return not self.spent and self.low == 0.0 and self.high == 1.0 and not self.grid

    def check(self) -> None:
        if self.leaf.closed:
            raise (Leaf.current or self.leaf).misunderstand(f"{self.site}: a draw kept from an earlier call is used again")
        if self.spent:
            raise self.leaf.misunderstand(f"{self.site}: the noise of a race is used a second time")

    def below(self, cut: float) -> bool:
        """Is the uniform below ``cut``? Branches if that is open, and remembers the answer."""
        self.check()
        if cut <= self.low:
            return False
        if cut >= self.high:
            return True
        width = self.high - self.low
        chance = (cut - self.low) / width
        if self.leaf.decide(self.site, (1.0 - chance, chance)):
            self.high = cut
            return True
        self.low = cut
        return False

    def among(self, chosen: np.ndarray[Any, Any]) -> bool:
        """For a grid: is the point among the ``chosen`` ones?"""
        self.check()
        assert self.alive is not None
        inside = int((self.alive & chosen).sum())
        total = int(self.alive.sum())
        if inside in (0, total):
            return inside > 0
        yes = bool(self.leaf.decide(self.site, (1.0 - inside / total, inside / total)))
        self.alive = self.alive & (chosen if yes else ~chosen)
        return yes


@dataclass(frozen=True)
class Step:
    """A monotone map. ``pull(c, strict)`` turns the event f(x) < c (or <=, not strict) into one on x: the cut, and
    whether it is strict; for a falling map the event is x > cut (or >=).
    """

    rising: bool
    apply: Callable[[float], float]
    pull: Callable[[float, bool], tuple[float, bool]]


def _add(by: float) -> Step:
    return Step(True, lambda x: x + by, lambda c, s: (c - by, s))


def _mul(by: float) -> Step:
    return Step(by > 0, lambda x: _times(x, by), lambda c, s: (c / by, s))


def _times(x: float, by: float) -> float:
    return 0.0 if x == 0 else x * by


def _guard(function: Callable[[float], float], value: float, low: float, high: float) -> float:
    """``function`` on [low, high], with the ends' limits where the library raises."""
    try:
        return float(function(value))
    except OverflowError:
        return INF
    except ValueError:
        return low if value <= 0 else high


def _log(base: float = math.e) -> Step:
    return Step(
        True,
        lambda x: -INF if x <= 0 else (INF if x == INF else math.log(x) / math.log(base) if base != math.e else math.log(x)),
        lambda c, s: (_power(base, c), s),
    )


def _power(base: float, c: float) -> float:
    return _guard(math.exp if base == math.e else lambda x: base**x, c, 0.0, INF)


_LOG1P = Step(
    True, lambda x: -INF if x <= -1 else math.log1p(x), lambda c, s: (_guard(math.expm1, c, -1.0, INF), s)
)
_EXP = Step(
    True, lambda x: _power(math.e, x), lambda c, s: (-INF, s) if c <= 0 else (INF if c == INF else math.log(c), s)
)
_EXPM1 = Step(
    True, lambda x: _guard(math.expm1, x, -1.0, INF), lambda c, s: (-INF, s) if c <= -1 else (math.log1p(c), s)
)
_PROBIT = Step(True, lambda x: float(ndtri(x)), lambda c, s: (float(ndtr(c)), s))
_NORMAL_CDF = Step(
    True, lambda x: float(ndtr(x)), lambda c, s: (-INF, s) if c <= 0 else (INF, s) if c >= 1 else (float(ndtri(c)), s)
)
_SIGMOID = Step(
    True,
    lambda x: 1.0 / (1.0 + _power(math.e, -x)),
    lambda c, s: (-INF, s) if c <= 0 else (INF, s) if c >= 1 else (math.log(c) - math.log1p(-c), s),
)
def _reciprocal(positive: bool) -> Step:
    def pull(c: float, s: bool) -> tuple[float, bool]:
        # 1/x falls on either side of zero: 1/x < c is x > 1/c there, everything or nothing where c has the other sign.
        if positive:
            return (INF, s) if c <= 0 else (1.0 / c, s)
        return (-INF, s) if c >= 0 else (1.0 / c, s)

    return Step(False, lambda x: (INF if positive else -INF) if x == 0 else 1.0 / x, pull)


def _raise_to(exponent: float) -> Step:
    def pull(c: float, s: bool) -> tuple[float, bool]:
        if c <= 0:
            return (-INF, s) if exponent > 0 else (INF, s)
        return (_guard(lambda x: x ** (1.0 / exponent), c, 0.0, INF), s)

    def apply(x: float) -> float:
        if x == 0:
            return 0.0 if exponent > 0 else INF
        return _guard(lambda y: y**exponent, x, 0.0, INF)

    return Step(exponent > 0, apply, pull)


def _clamp(low: float, high: float) -> Step:
    def pull(c: float, s: bool) -> tuple[float, bool]:
        if (c <= low) if s else (c < low):
            return (-INF, True)
        if (c > high) if s else (c >= high):
            return (INF, True)
        return (c, s)

    return Step(True, lambda x: min(max(x, low), high), pull)


def _cast(dtype: torch.dtype) -> Step:
    """Rounding to a narrow floating type, whose values are far enough apart to count."""

    def down(x: float) -> float:
        return float(torch.tensor(x, dtype=torch.float64).to(torch.float32).to(dtype))

    def pull(c: float, s: bool) -> tuple[float, bool]:
        if math.isinf(c):
            return (c, s)
        near = torch.tensor(c, dtype=torch.float64).to(dtype)
        value = float(near)
        # The smallest representable value that f(x) must stay under (strict) or may not pass.
        up = torch.nextafter(near, torch.tensor(INF, dtype=dtype))
        bar = near if (value >= c if s else value > c) else up
        under = torch.nextafter(bar, torch.tensor(-INF, dtype=dtype))
        return ((float(bar) + float(under)) / 2, True)

    return Step(True, down, pull)


# What a symbol is, up to a rising map common to all contestants of a race. E is a standard exponential.
#   ("uniform", a, b): a * U + b      ("power", c, k): c * E**k      ("log", a, b): a * log(E) + b
#   ("root", r): exp(-r * E)
Shape = tuple[Any, ...] | None


class Symbol:
    """A monotone function of one atom. Arithmetic with numbers gives symbols; comparisons give booleans."""

    __slots__ = ("atom", "high", "low", "rising", "shape", "steps")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, atom: Atom, steps: tuple[Step, ...], low: float, high: float, rising: bool, shape: Shape) -> None:
        self.atom, self.steps, self.low, self.high, self.rising, self.shape = atom, steps, low, high, rising, shape

    @staticmethod
    def uniform(leaf: Leaf, site: str) -> Symbol:
        return Symbol(Atom(leaf, site), (), 0.0, 1.0, True, ("uniform", 1.0, 0.0))

    @staticmethod
    def exponential(leaf: Leaf, site: str, rate: float = 1.0) -> Symbol:
        return -(1 - Symbol.uniform(leaf, site)).log() / rate

    @staticmethod
    def gumbel(leaf: Leaf, site: str) -> Symbol:
        return -Symbol.exponential(leaf, site).log()

    @staticmethod
    def normal(leaf: Leaf, site: str) -> Symbol:
        return Symbol.uniform(leaf, site)._then(_PROBIT, None)

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
        if not _is_number(other):
            return NotImplemented
        bar = float(other)
        if bar != bar:
            return False
        return self.under(bar, strict) != negate

    def __eq__(self, other: Any) -> Any:
        if isinstance(other, Symbol):
            return other is self or (other.atom is self.atom and other.steps == self.steps)
        if not _is_number(other):
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
        return (self + 0.5)._whole()

    def __float__(self) -> float:
        raise self._refuse("made a plain float (float(u), math functions imported by name); keep the tensor, or use .item()")

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
        if not _is_number(other):
            return NotImplemented
        by = float(other)
        if by == 0.0:
            return self
        if by != by or by in (INF, -INF):
            return by
        match self.shape:
            case ("uniform", a, b):
                shape: Shape = ("uniform", a, b + by)
            case ("log", a, b):
                shape = ("log", a, b + by)
            case _:
                shape = None
        return self._then(_add(by), shape)

    __radd__ = __add__

    def __neg__(self) -> Symbol:
        return self * -1.0

    def __pos__(self) -> Symbol:
        return self

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, Symbol):
            raise self._refuse(f"subtracted from another draw ({other.atom.site})")
        return self + -float(other) if _is_number(other) else NotImplemented

    def __rsub__(self, other: Any) -> Any:
        return (-self) + other

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Symbol):
            raise self._refuse(f"multiplied with another draw ({other.atom.site})")
        if not _is_number(other):
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
        return self._then(_mul(by), shape)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, Symbol):
            raise self._refuse(f"divided by another draw ({other.atom.site})")
        if not _is_number(other):
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
        return self.reciprocal() * other if _is_number(other) else NotImplemented

    def reciprocal(self) -> Symbol:
        if self.low < 0 < self.high:
            raise self._refuse("inverted across zero")
        match self.shape:
            case ("power", c, k):
                shape: Shape = ("power", 1.0 / c, -k)
            case _:
                shape = None
        return self._then(_reciprocal(self.low >= 0), shape)

    def __pow__(self, other: Any) -> Any:
        if not _is_number(other):
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
        return self._then(_raise_to(exponent), shape)

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
            shape = (shape[0], shape[1] * by, shape[2] * by) if shape[0] == "log" else (shape[0], shape[1] * by, shape[2])
        return self._then(_log(base), shape)

    def log2(self) -> Symbol:
        return self.log(2.0)

    def log10(self) -> Symbol:
        return self.log(10.0)

    def log1p(self) -> Symbol:
        shape: Shape = ("power", -1.0, 1.0) if self.shape in (("uniform", -1.0, 0.0), ("uniform", 1.0, -1.0)) else None
        return self._then(_LOG1P, shape)

    def exp(self) -> Symbol:
        match self.shape:
            case ("log", a, b):
                shape: Shape = ("power", math.exp(b), a)
            case ("power", c, 1.0) if c < 0:
                shape = ("root", -c)
            case _:
                shape = None
        return self._then(_EXP, shape)

    def expm1(self) -> Symbol:
        return self._then(_EXPM1, None)

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
        return self._then(_SIGMOID, None)

    def probit(self) -> Symbol:
        if not (self.low >= 0 and self.high <= 1):
            raise self._refuse("normal quantile outside [0, 1]")
        return self._then(_PROBIT, None)

    def normal_cdf(self) -> Symbol:
        return self._then(_NORMAL_CDF, None)

    def clip(self, low: float | None = None, high: float | None = None) -> Symbol:
        """Clamped to [low, high]."""
        low, high = -INF if low is None else float(low), INF if high is None else float(high)
        if low <= self.low and high >= self.high:
            return self
        return self._then(_clamp(low, high), None)

    def cast(self, dtype: torch.dtype) -> Any:
        if dtype in (torch.float32, torch.float64):
            return self
        if dtype in (torch.bfloat16, torch.float16):
            return self._then(_cast(dtype), None)
        if dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
            return int(self)
        if dtype is torch.bool:
            return bool(self)
        raise self._refuse(f"cast to {dtype}")


class GridSymbol(Symbol):
    """A function of a uniform on a coarse grid, held as its value at every grid point: any map at all is exact."""

    __slots__ = ("values",)

    def __init__(self, atom: Atom, values: np.ndarray[Any, Any]) -> None:
        super().__init__(atom, (), float(values.min()), float(values.max()), True, None)
        self.values = values

    @staticmethod
    def draw(leaf: Leaf, site: str, dtype: torch.dtype) -> GridSymbol:
        # torch fills a bfloat16 uniform from 8 random bits and a float16 one from 11.
        size = 2**8 if dtype is torch.bfloat16 else 2**11
        return GridSymbol(Atom(leaf, site, size), np.arange(size) / size)

    def _map(self, function: Callable[[Any], Any]) -> GridSymbol:
        self.atom.check()
        with np.errstate(all="ignore"):
            return GridSymbol(self.atom, np.asarray(function(self.values), dtype=np.float64))

    def under(self, bar: float, strict: bool) -> bool:
        return self.atom.among(self.values < bar if strict else self.values <= bar)

    def __eq__(self, other: Any) -> Any:
        return self.atom.among(self.values == float(other)) if _is_number(other) else NotImplemented

    def _whole(self) -> int:
        for whole in np.unique(np.floor(self.values)):
            if self.atom.among(np.floor(self.values) == whole):
                return int(whole)
        raise self._refuse("made an integer of nothing")

    def __add__(self, other: Any) -> Any:
        return self._map(lambda v: v + float(other)) if _is_number(other) else NotImplemented

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        return self._map(lambda v: v * float(other)) if _is_number(other) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self._map(lambda v: np.true_divide(v, float(other))) if _is_number(other) else NotImplemented

    def __rtruediv__(self, other: Any) -> Any:
        return self._map(lambda v: np.true_divide(float(other), v)) if _is_number(other) else NotImplemented

    def reciprocal(self) -> Symbol:
        return self._map(np.reciprocal)

    def __pow__(self, other: Any) -> Any:
        return self._map(lambda v: v ** float(other)) if _is_number(other) else NotImplemented

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
            return self._map(lambda v: torch.from_numpy(np.array(v)).float().to(dtype).double().numpy()) if (
                dtype in (torch.bfloat16, torch.float16)
            ) else self
        return super().cast(dtype)


def _is_number(value: Any) -> bool:
    if isinstance(value, (int, float, np.number, np.bool_)):
        return True
    return isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype != object


def winner(leaf: Leaf, contestants: Sequence[Any], largest: bool, site: str = "race") -> int:
    """The index of the largest (or smallest) of numbers and symbols on draws not used before.

    With E_i independent standard exponentials, the smallest E_i / w_i is number i with probability w_i / sum(w): contestants
    that are one and the same map of E_i / w_i are decided by it. Others by the quadrature of P(i wins) = E[prod_{j != i}
    P(X_j < X_i)], whose error goes into the leaf's. Numbers may take part where they cannot win. Raises NotUnderstood
    where draws were used before or the quadrature fails.
    """
    drawn = [(i, item) for i, item in enumerate(contestants) if isinstance(item, Symbol)]
    sign = 1.0 if largest else -1.0
    fixed = [(sign * float(item), -i) for i, item in enumerate(contestants) if not isinstance(item, Symbol)]
    if not drawn:
        return -max(fixed)[1]
    if any(value != value for value, _ in fixed):
        raise leaf.misunderstand(f"{site}: a NaN among the contestants")
    if len(drawn) == 1:
        index, only = drawn[0]
        if not fixed:
            return index
        rival, where = max(fixed)
        ahead = only > rival if largest else only < -rival
        return index if ahead else -where
    symbols = [item for _, item in drawn]
    if len({id(item.atom) for item in symbols}) < len(drawn) or not all(item.atom.fresh for item in symbols):
        raise leaf.misunderstand(f"{site}: a race between draws that were used before")
    reach = min(item.low if largest else -item.high for item in symbols)
    if any(value > reach for value, _ in fixed):
        raise leaf.misunderstand(f"{site}: a race between draws and a number that may win")
    rates = [_rate(item.shape, largest) for item in symbols]
    if rates[0][0] is not None and len({kind for kind, _ in rates}) == 1:
        logs = np.array([rate for _, rate in rates])
        weights = np.exp(logs - logs.max())
        chances, error = weights / weights.sum(), 0.0
    else:
        chances, error = _by_quadrature(symbols, largest)
        if error > 1e-8:
            raise leaf.misunderstand(f"{site}: largest or smallest of draws that are not an exponential race")
    leaf.error += error
    taken = leaf.decide(site, tuple(chances.tolist()))
    for item in symbols:
        item.atom.spent = True
    return drawn[taken][0]


def _by_quadrature(symbols: Sequence[Symbol], largest: bool) -> tuple[np.ndarray[Any, Any], float]:
    """P(each wins), and a bound on the error: the quadrature's own and the mass that ties would take."""
    total = np.zeros(len(symbols))
    error = 0.0
    for i, one in enumerate(symbols):

        def others_lose(u: float, one: Symbol = one, i: int = i) -> float:
            value = one.value(u)
            chances = (other.chance_under(value) for j, other in enumerate(symbols) if j != i)
            return math.prod(c if largest else 1.0 - c for c in chances)

        total[i], slack = quad(others_lose, 0.0, 1.0, epsabs=1e-13, epsrel=1e-12, limit=400)
        error += slack
    return total / total.sum(), error + abs(1.0 - float(total.sum()))


def _rate(shape: Shape, largest: bool) -> tuple[Any, float]:
    """What is common to the contestants, and log w for one that is a map of E / w which wins where E / w is least."""
    match shape:
        case ("power", c, k) if (c * k < 0) == largest:
            return ("power", c > 0, k), -math.log(abs(c)) / k
        case ("log", a, b) if (a < 0) == largest:
            return ("log", a), -b / a
        case ("root", r) if (r > 0) == largest:
            return ("root",), -math.log(abs(r))
        case ("uniform", 1.0, 0.0) | ("uniform", -1.0, 1.0) if largest:
            return ("root",), 0.0
        case _:
            return None, 0.0
