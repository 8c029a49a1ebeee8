"""Events that may show a continuous sampler's bias, chosen on one sample of rows to be counted on another."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.special import ndtr

from distributions.tape import GeneratorTape
from verify.checks.branches import Branches
from verify.checks.dependence import SMALL_CALL, call_sums
from verify.checks.products import legendre
from verify.checks.support import most_repeated, resolution
from verify.spaces.gaussian_pairs import Pair
from verify.spaces.gaussian_rows import SMALL_CALLS, Rows
from verify.statistics.witness import Interval, Witness, heaviest_interval

GIVES = " with probability {found:.4g} where the target gives at most {mass:.4g}"
PLAIN = "x = draft.sample((20_000,))\ny = fn(x.clone(), draft, target)\n"


def witnesses(rows: Rows, rejected: Collection[str]) -> list[Witness[Rows]]:
    """The events worth counting on fresh rows of the same pair, given the checks that rejected on these."""
    pair = rows.pair
    accepts: Witness[Rows] = Witness(
        "accepts {found:.4g} where a lossless rule may accept at most {mass:.4g}",
        lambda fresh: fresh.accepted,
        pair.overlap,
        PLAIN + "event = torch.isclose(y, x.to(y.dtype), rtol=1e-6, atol=1e-12).all(-1)",
    )
    if not rows.finite:
        event = PLAIN + "event = ~torch.isfinite(y).all(-1)"
        return [accepts, Witness("the output is not finite with probability {found:.4g}", _not_finite, 0.0, event)]
    if "row_dependence" in rejected:
        return _calls(rows)  # counting rows that depend on each other would certify nothing
    found = [accepts, _interval(rows)]
    if "support" in rejected:
        found.append(_atom(rows))
    if "products" in rejected:
        found.append(_same_side(rows))
    if "branches" in rejected:
        found += _branch(rows)
    return found


def _not_finite(rows: Rows) -> Tensor:
    return ~torch.isfinite(rows.emitted).all(-1)


def _interval(rows: Rows) -> Witness[Rows]:
    every = [heaviest_interval(column) for column in rows.columns.unbind(-1)]
    best = max(range(len(every)), key=lambda index: every[index][1])
    interval = every[best][0]
    words, code = rows.pair.describe(best, interval)
    return Witness(words + GIVES, lambda fresh: interval.holds(fresh.columns[:, best]), interval.mass, PLAIN + code)


def _branch(rows: Rows) -> list[Witness[Rows]]:
    """Rows kept somewhere, of which a lossless rule has so many at most; or all but the rows replaced there. Nothing,
    where that is anywhere: then it is how often it accepts.
    """
    pair = rows.pair
    check = Branches()
    found = check.heaviest(check.statistic(rows.trace, None, GeneratorTape()), pair.start)
    low, high = ndtr(torch.tensor([found.low, found.high]).double()).tolist()
    interval = Interval(low, high, inside=True)
    if interval.mass == 1:
        return []
    words, code = pair.describe(0, interval)

    def event(fresh: Rows) -> Tensor:
        inside = interval.holds(fresh.columns[:, 0])
        return inside & fresh.accepted if found.kept else ~(inside & ~fresh.accepted)

    kept = "kept = torch.isclose(y, x.to(y.dtype), rtol=1e-6, atol=1e-12).all(-1)"
    if found.kept:
        text = f"a draft is kept and {words}{GIVES}"
        return [Witness(text, event, found.mass, f"{PLAIN}{code}\n{kept}\nevent = event & kept")]
    # The event is that no row is replaced there; a bound on too few replacements.
    text = f"it is not so that the draft is replaced and {words}, with probability {{found:.4g}} where a lossless rule "
    text += "has at most {mass:.4g}"
    return [Witness(text, event, 1 - found.mass, f"{PLAIN}{code}\n{kept}\nevent = ~(event & ~kept)")]


def _atom(rows: Rows) -> Witness[Rows]:
    value, _ = most_repeated(rows.emitted)
    shown = ", ".join(f"{item:.4g}" for item in value.tolist()[:3]) + (", ..." if len(value) > 3 else "")
    constant = f"torch.tensor({value.tolist()}, dtype=y.dtype)"
    return Witness(
        f"the output is exactly ({shown})" + GIVES,
        lambda fresh: (fresh.emitted == value).all(-1),
        resolution(rows.emitted),
        PLAIN + f"event = (y == {constant}).all(-1)",
    )


def _same_side(rows: Rows) -> Witness[Rows]:
    """Two coordinates on the same (or on different) sides of their medians: probability one half."""
    linear = legendre(rows.columns[:, : rows.pair.dim])[:, : rows.pair.dim]
    means = (linear.T @ linear / len(linear)).fill_diagonal_(0)
    first, second = divmod(int(means.abs().argmax()), rows.pair.dim)
    positive = bool(means[first, second] > 0)

    def event(fresh: Rows) -> Tensor:
        return ((fresh.columns[:, first] > 0.5) == (fresh.columns[:, second] > 0.5)) == positive

    # On a coordinate's column the median is the target's mean, so the sides are the signs of the projections.
    axes, frame = rows.pair.projections((first, second))
    side = "the same side" if positive else "different sides"
    return Witness(
        f"whitened directions {first} and {second} of y lie on {side} of their medians" + GIVES,
        event,
        0.5,
        PLAIN + f"{frame}\nside = z @ {axes} > 0\nevent = (side[:, 0] == side[:, 1]) == {positive}",
    )


def _calls(rows: Rows) -> list[Witness[Rows]]:
    """Whole calls: a repeated row in a small one, a sum over a large one more than 3 standard deviations from 0."""
    size = torch.bincount(rows.call)
    found: list[Witness[Rows]] = []
    small = size[(size > 1) & (size <= SMALL_CALL)]
    if len(small):
        largest = int(small.max())
        found.append(
            Witness(
                "a call of at most 64 rows repeats a row" + GIVES,
                _small_calls_with_copies,
                largest * (largest - 1) / 2 * resolution(rows.emitted),
                "calls = [fn(draft.sample((3,)), draft, target) for _ in range(1000)]\n"
                "event = torch.tensor([len(part.unique(dim=0)) < len(part) for part in calls])",
                joint=True,
            )
        )
    if bool((size >= 256).any()):
        column = int(_large_sums(rows).square().mean(0).argmax())
        axes, frame = rows.pair.projections((column, column))
        found.append(
            Witness(
                f"the sum of a call's rows along direction {column} is more than 3 standard deviations off" + GIVES,
                lambda fresh: _large_sums(fresh)[:, column].abs() > 3,
                2 * math.exp(-4.5),  # strictly sub-Gaussian sums: Chernoff's bound, at any size of call
                f"calls = [fn(draft.sample(({int(size.max())},)), draft, target) for _ in range(100)]\n"
                "y = torch.cat(calls)\n"
                f"{frame}\nu = torch.special.ndtr(z @ {axes})[:, 0].reshape(100, -1)\n"
                "event = ((12**0.5 * (u - 0.5)).sum(-1) / u.shape[1] ** 0.5).abs() > 3",
                joint=True,
            )
        )
    return found


def _large_sums(rows: Rows) -> Tensor:
    sums = call_sums(legendre(rows.columns[:, : rows.pair.dim])[:, : rows.pair.dim], rows.call)
    return sums[torch.bincount(rows.call) >= 256]


def _small_calls_with_copies(rows: Rows) -> Tensor:
    size = torch.bincount(rows.call)
    wanted = torch.nonzero((size > 1) & (size <= SMALL_CALL)).squeeze(-1).tolist()
    parts = [rows.emitted[rows.call == number].numpy() for number in wanted]
    return torch.tensor([len(np.unique(part, axis=0)) < len(part) for part in parts], dtype=torch.bool)


@dataclass(frozen=True, eq=False)
class Pools:
    """Uniform columns of some rows of all pairs, by their place in a call or its size; ``pair`` is one of the pairs."""

    pair: Pair
    columns: dict[str, Tensor]


EDGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rows of calls of 1, 2, 3 and 17": lambda size, place: size <= max(SMALL_CALLS),
    "first rows of the calls": lambda size, place: place == 0,
    "last rows of the calls": lambda size, place: place == size - 1,
}


def pools(every: Sequence[Rows]) -> Pools:
    """The rows at the edges of the calls, of all pairs together: each pair's own columns are uniform."""
    columns: dict[str, list[Tensor]] = {name: [] for name in EDGES}
    for rows in every:
        size = torch.bincount(rows.call)[rows.call]
        for name, chosen in EDGES.items():
            if rows.finite:
                columns[name].append(rows.columns[chosen(size, rows.place)])
    return Pools(every[0].pair, {name: torch.cat(parts) for name, parts in columns.items() if parts})


def pool_witness(found: Pools, name: str) -> Witness[Pools]:
    """The heaviest interval of one pool."""
    every = [heaviest_interval(column) for column in found.columns[name].unbind(-1)]
    best = max(range(len(every)), key=lambda index: every[index][1])
    interval = every[best][0]
    words, code = found.pair.describe(best, interval)
    taken = {"first rows of the calls": "[:1]", "last rows of the calls": "[-1:]"}.get(name, "")
    return Witness(
        f"on the {name}, {words}" + GIVES,
        lambda fresh: interval.holds(fresh.columns[name][:, best]),
        interval.mass,
        f"y = torch.cat([fn(draft.sample((3,)), draft, target){taken} for _ in range(10_000)])\n{code}",
    )
