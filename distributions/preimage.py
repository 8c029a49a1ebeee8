"""Where a map takes a given value: Broyden's method, vectorised over rows, with the Jacobian at the solution."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.func import vjp, vmap

Map = Callable[[Tensor, Tensor], Tensor]
"""The maps of the given rows (n,), at one place (n, d) each: (n, d). Rows must not depend on one another."""
Slopes = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""What ``Map`` gives, and its Jacobians (n, d, d)."""

FINE, COARSE = 1e-13, 1e-5
"""Errors relative to 1 + |value|: that at which a search ends, and the most at which a preimage counts as found."""
SAME = 1e-4
"""How far apart two places may be, in each coordinate, that count as one: above what a coarse solution may be off."""
TURNS, TRIALS = 8, 25
"""The most Jacobians, and the most trials with each of them."""


def jacobian(map_: Callable[[Tensor], Tensor], place: Tensor) -> tuple[Tensor, Tensor]:
    """The values (n, d) and Jacobians (n, d, d) of a map of rows at ``place`` (n, d), by d reverse-mode products.

    A row of the Jacobian is the gradient of one coordinate, summed over all rows of the batch, of which only one
    depends on the place. Forward mode gives the same; on the networks here it takes over twice as long.
    """
    image, pull = vjp(map_, place)  # type: ignore[misc]
    slope = vmap(lambda coordinate: pull(coordinate.expand_as(image))[0], out_dims=1)(
        torch.eye(place.shape[1]).to(image)
    )
    return image, slope


def preimage(
    map_: Map,
    goal: Tensor,
    guess: Tensor | None = None,
    start: Tensor | None = None,
    slopes: Slopes | None = None,
    last: bool = True,
    patience: int = 2,
) -> tuple[Tensor, Tensor, Tensor]:
    """(place, Jacobian there, whether solved) with map(place) = ``goal`` (n, d), searched from ``start`` (n, d), which
    is ``goal`` itself unless given.

    ``guess`` (n, d, d): what is known of the Jacobian, for a first search. After it, the Jacobian at the place found is
    computed, which is the answer's own where the error is fine; where it is not, a search starts anew with it. A head
    of single precision leaves errors above the fine one: a place is a solution too where its error is coarse and a
    search with its own Jacobian does not move it further than that. ``slopes``: another way to the Jacobians than
    ``jacobian``. Without ``last`` a first search that ends with a fine error is not followed by a Jacobian: zeros.
    ``patience``: how many trials in turn may fail to halve an error that is not coarse yet; a long chain takes more.
    Steps are cut to the scale of the value or, if larger, of ``start``.
    """
    if slopes is None:
        slopes = partial(_slopes, map_)
    rows, scale = torch.arange(len(goal), device=goal.device), _scale(goal)
    place = goal.clone() if start is None else start.clone()
    longest = scale if start is None else torch.maximum(scale, _scale(start))
    error = goal - map_(rows, place)
    own = goal.new_zeros(*goal.shape, goal.shape[-1])
    solved = torch.zeros(len(goal), dtype=torch.bool, device=goal.device)
    left, slope = rows, guess
    for turn in range(TURNS):
        if not len(left):
            break
        if turn or slope is None:
            _, own[left] = slopes(left, place[left])
            solved[left] = _size(error[left]) <= FINE * scale[left]
            left = left[~solved[left]]
            slope = own[left]
            if not len(left):
                break
        before = place[left]
        place[left], error[left] = _search(map_, left, goal[left], before, error[left], slope, longest[left], patience)
        if turn:
            moved = torch.maximum(_size(place[left] - before), _size(error[left]))
            solved[left] = moved <= COARSE * scale[left]
        elif not last:
            solved[left] = _size(error[left]) <= FINE * scale[left]
        left = left[~solved[left]]
    return place, own, solved


def _slopes(map_: Map, rows: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    return jacobian(partial(map_, rows), place)


def _search(
    map_: Map, rows: Tensor, goal: Tensor, place: Tensor, error: Tensor, slope: Tensor, longest: Tensor, patience: int
) -> tuple[Tensor, Tensor]:
    """The best (place, error) that Broyden's good method finds from a place with ``error`` = goal - map(place).

    With H near the inverse of the Jacobian, the step s = H error is tried; what it did to the error, y, corrects H to
    H + (s - H y) s^T H / (s^T H y) (Broyden 1965). A place that is no better is not taken, but H learns from it; the
    next step is half as long at most. A row's search ends where the error was not halved ``patience`` times in turn,
    or twice if it is coarse: there it may be rounding. No step exceeds ``longest``.
    """
    place, error, scale = place.clone(), error.clone(), _scale(goal)
    left = torch.arange(len(goal), device=goal.device)
    inverse = torch.linalg.inv_ex(slope)[0].nan_to_num(0.0, 0.0, 0.0)
    trials, reach = torch.full_like(left, patience), longest.clone()
    for _ in range(TRIALS):
        step = (inverse @ error[left].unsqueeze(-1)).squeeze(-1)
        step = step * (reach[left] / _size(step).clamp(min=1e-300)).clamp(max=1).unsqueeze(-1)
        trial = place[left] + step
        after = goal[left] - map_(rows[left], trial)
        told = (inverse @ (error[left] - after).unsqueeze(-1)).squeeze(-1)
        along = (step * told).sum(-1)[:, None, None]
        inverse = inverse + (step - told).unsqueeze(-1) @ (step.unsqueeze(-2) @ inverse) / along
        ratio = _size(after) / _size(error[left])
        better = ratio < 1
        place[left[better]], error[left[better]] = trial[better], after[better]
        near = _size(error[left]) <= COARSE * scale[left]
        trials[left] = torch.where(ratio < 0.5, patience, trials[left] - torch.where(near, patience // 2, 1))
        reach[left] = torch.where(better, longest[left], _size(step) / 2)
        on = (trials[left] > 0) & (_size(error[left]) > FINE * scale[left])
        on &= torch.isfinite(inverse).all(-1).all(-1)
        left, inverse = left[on], inverse[on]
        if not len(left):
            break
    return place, error


def _size(vector: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(vector, dim=-1)
    return size


def _scale(vector: Tensor) -> Tensor:
    return 1 + _size(vector)
