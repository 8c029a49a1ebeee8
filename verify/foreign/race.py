"""Which of several draws is the largest: exponential and Gumbel races in closed form, others by quadrature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from verify.foreign.leaf import Leaf
from verify.foreign.symbols import Shape, Symbol


def winner(leaf: Leaf, contestants: Sequence[Any], largest: bool, site: str = "race") -> int:
    """The index of the largest (or smallest) of numbers and symbols on draws not used before.

    With E_i independent standard exponentials, the smallest E_i / w_i is number i with probability w_i / sum(w):
    contestants that are one and the same map of E_i / w_i are decided by it. Others by the quadrature of P(i wins) =
    E[prod_{j != i} P(X_j < X_i)], whose error goes into the leaf's. Numbers may take part where they
    cannot win. Raises NotUnderstood
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
    if fixed:
        bar = max(fixed)[0]
        lost = math.prod(item.chance_under(bar) if largest else 1.0 - item.chance_under(-bar) for item in symbols)
        if lost > 1e-15:
            raise leaf.misunderstand(f"{site}: a race between draws and a number that may win")
        leaf.error += lost
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
    from scipy.integrate import quad  # seldom needed, and slow to load

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
