"""Jacobi decoding on paper: dictionaries, fractions of probability and recursion, with nothing of the package in it.

A window is a tuple of (token, label) pairs; a label is the tuple of probabilities that the draft is taken to be from.
Nothing is vectorised and no window shrinks. For two or three tokens and short sequences.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Label = tuple[float, ...]
Window = tuple[tuple[int, Label], ...]
Prefix = tuple[int, ...]
Law = Callable[[Prefix], Label]


@dataclass(frozen=True)
class Rule:
    """``later``: how a later draft is redrawn (fresh, coupled, or kept and else fresh); ``stale``: whether a kept one
    keeps its label; ``replace``: the law in place of a rejected draft (residual or target).
    """

    later: str = "fresh"
    stale: bool = False
    replace: str = "residual"


def residual(target: Label, label: Label) -> Label:
    over = [max(0.0, new - old) for new, old in zip(target, label, strict=True)]
    return tuple(value / sum(over) for value in over) if sum(over) else target


def options(
    rule: Rule, token: int, label: Label, target: Label, first: bool
) -> Iterator[tuple[float, bool, int, Label]]:
    """(probability, kept, token, label) of a column's next state; ``first``: it is the first that was rejected or none
    was so far, so that it is committed.
    """
    keep = min(1.0, target[token] / label[token])
    if first or rule.later != "fresh":
        yield keep, True, token, label if rule.stale and not first else target
    if first:
        law = residual(target, label) if rule.replace == "residual" else target
    elif rule.later == "fresh":
        law, keep = target, 0.0
    else:
        law = residual(target, label) if rule.later == "coupled" else target
    for other, share in enumerate(law):
        yield (1 - keep) * share, False, other, target


def turn(rule: Rule, law: Law, prefix: Prefix, window: Window) -> dict[tuple[Prefix, Window], float]:
    """Every (prefix, window) after one round, with its probability."""
    found: dict[tuple[Prefix, Window], float] = defaultdict(float)
    nodes, context = len(window), prefix
    laws = []
    for token, _ in window:
        laws.append(law(context))
        context = (*context, token)
    laws.append(law(context))
    flat = tuple([1 / len(laws[0])] * len(laws[0]))

    def columns(place: int, mass: float, committed: Prefix, rejected: bool, rest: Window) -> None:
        if mass == 0:
            return
        if place == nodes:  # the last column: a bonus, or the last draft of the next window
            for token, share in enumerate(laws[nodes]):
                if rejected:
                    enter(mass * share, committed, (*rest, (token, laws[nodes])))
                else:
                    enter(mass * share, (*committed, token), rest)
            return
        token, label = window[place]
        for chance, kept, value, name in options(rule, token, label, laws[place], not rejected):
            if rejected:
                columns(place + 1, mass * chance, committed, True, (*rest, (value, name)))
            else:
                columns(place + 1, mass * chance, (*committed, value), not kept, rest)

    def enter(mass: float, committed: Prefix, rest: Window) -> None:
        if len(rest) == nodes:
            found[committed, rest] += mass
            return
        for token, share in enumerate(flat):
            enter(mass * share, committed, (*rest, (token, flat)))

    columns(0, 1.0, prefix, False, ())
    return found


def decoded(rule: Rule, target: Law, drafter: Law, nodes: int, length: int) -> tuple[dict[Prefix, float], float]:
    """The law of ``length`` tokens, and the expected number of rounds."""
    states: dict[tuple[Prefix, Window], float] = defaultdict(float)

    def draft(mass: float, context: Prefix, window: Window) -> None:
        if len(window) == nodes:
            states[(), window] += mass
            return
        label = drafter(context)
        for token, share in enumerate(label):
            if share:
                draft(mass * share, (*context, token), (*window, (token, label)))

    draft(1.0, (), ())
    law: dict[Prefix, float] = defaultdict(float)
    rounds = 0.0
    while states:
        prefix, window = min(states, key=lambda state: len(state[0]))
        mass = states.pop((prefix, window))
        rounds += mass
        for (longer, later), chance in turn(rule, target, prefix, window).items():
            if len(longer) >= length:
                law[longer[:length]] += mass * chance
            else:
                states[longer, later] += mass * chance
    return law, rounds
