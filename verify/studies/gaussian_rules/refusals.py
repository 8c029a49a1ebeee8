"""Where a refused draft goes, as a law: the residual's draws are given to the rule, and its answers inverted."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from distributions.normal import normal_cdf
from distributions.tape import GeneratorTape
from verify.studies.gaussian_rules.cells import REACH, cumulative, integrals, inverse
from verify.studies.gaussian_rules.decisions import PROBES, Decisions, NotOnTheLine, phi
from verify.studies.gaussian_rules.given import ask

Below = Callable[[Tensor], Tensor]
LEFT, MOST = 1e-10, 5_000
"""The mass of rounds that may still be drawing when thinning is no longer followed, and the most draws followed."""


def refused_below(decided: Decisions, mass: float) -> tuple[str, Below, float]:
    """How refused drafts are replaced, in a word; the mass of replacements below a place; and the chance of one draw
    to be taken, 1 where no draw is thrown away. ``mass`` is that of all refused drafts.

    The kind is read from the draws that the rule asks for. Raises NotOnTheLine for one that is none of these.
    """
    outcome, asked = ask(decided.rule, _far(decided, PROBES, -9.0), decided.distance)
    if bool(outcome.kept.any()):
        raise NotOnTheLine("drafts far on the other side of the target are kept for certain")
    draws = [item for item in asked if item.site.startswith("residual")]
    kinds = [item.kind for item in draws]
    coins, uniforms = kinds.count("coin"), kinds.count("uniform")
    if coins:
        return "thinned", *_thinned(decided, mass)
    if kinds == ["normal"]:
        return "drawn", *_thinned(decided, mass, thins=False)
    if uniforms == 1:
        early = next(item for item in asked if item.site.startswith("accept"))
        tail = _raced(decided) if early.kind == "uniform" else _inverted(decided, mass)
        return ("raced" if early.kind == "uniform" else "inverted"), tail, 1.0
    if not draws and decided.nodes == 1:
        return "moved", _moved(decided), 1.0
    raise NotOnTheLine("what replaces a refused draft is no function of one draw")


def _far(decided: Decisions, rows: int, place: float) -> Tensor:
    """Drafts that no rule must keep."""
    return torch.full((rows, decided.nodes), place, dtype=torch.float64)


def _same(one: Tensor, other: Tensor, what: str) -> None:
    if one.shape != other.shape or not torch.allclose(one, other, rtol=1e-10, atol=1e-10):
        raise NotOnTheLine(what)


def _inverted(decided: Decisions, mass: float) -> Below:
    """One uniform, and nothing else: its place rises with it, so that the mass below is where the uniform is."""
    rule, distance = decided.rule, decided.distance

    def place(uniform: Tensor, start: float = -9.0, noise: float = 0.0) -> Tensor:
        normal = torch.full((len(uniform), 1), noise, dtype=torch.float64)
        outcome, _ = ask(rule, _far(decided, len(uniform), start), distance, uniform=uniform, normal=normal)
        return outcome.value[:, 0, 0]

    probe = torch.linspace(0, 1 - 1e-12, PROBES, dtype=torch.float64)
    found = place(probe)
    if not bool((found.diff() > 0).all()):
        raise NotOnTheLine("the replacement does not rise with its uniform")
    _same(found, place(probe, -8.0, 1.0), "the replacement depends on the draft")

    def below(where: Tensor) -> Tensor:
        low = torch.zeros_like(where)
        uniform = inverse(place, where, low, low + 1 - 2**-53)
        return mass * uniform

    return below


def _thinned(decided: Decisions, mass: float, thins: bool = True) -> tuple[Below, float]:
    """Draws of one normal each, until a coin keeps one: the law of a draw, times its chance, over the mean chance.
    Without coins the first is kept.
    """
    rule, distance = decided.rule, decided.distance

    def turn(noise: Tensor, tails: int = 0, start: float = -9.0) -> tuple[Tensor, Tensor]:
        """Where a draw lies, and the chance to keep it, as the draw after ``tails`` refused ones."""
        before = torch.full((len(noise), tails), 0.3, dtype=torch.float64)
        normal = torch.cat((before, noise.unsqueeze(-1)), 1)
        outcome, asked = ask(rule, _far(decided, len(noise), start), distance, normal=normal, tails=tails)
        chance = [item.chance for item in asked if item.site.startswith("residual") and item.kind == "coin"]
        return outcome.value[:, 0, 0], chance[min(tails, len(chance) - 1)] if chance else torch.ones_like(noise)

    probe = torch.linspace(-8, 8, PROBES, dtype=torch.float64)
    again = 2 if thins else 0
    for one, other, last in zip(turn(probe), turn(probe, tails=again), turn(probe, start=-8.0), strict=True):
        _same(one, other, "later draws have another law than the first")
        _same(one, last, "the replacement depends on the draft")
    if not bool((turn(probe)[0].diff() > 0).all()):
        raise NotOnTheLine("a draw does not rise with its noise")

    def density(noise: Tensor) -> Tensor:
        return phi(noise) * turn(noise)[1]

    whole = cumulative(density, torch.linspace(-REACH, REACH, 41, dtype=torch.float64), -REACH)[-1]

    # Draws go on until what is left is too little to count: a rule that gives up before is another one.
    turns = math.ceil(math.log(LEFT / max(mass, LEFT)) / math.log1p(-float(whole))) if thins and whole < 1 else 0
    few = probe[::64]
    _same(turn(few, tails=min(turns, MOST))[0], turn(few)[0], f"it stops drawing within {turns} draws")

    def below(where: Tensor) -> Tensor:
        low = torch.full_like(where, -REACH)
        noise = inverse(lambda at: turn(at)[0], where, low, -low)
        return mass * cumulative(density, noise, -REACH) / whole

    return below, float(whole)


def _moved(decided: Decisions) -> Below:
    """Nothing is drawn: the replacement is a monotone function of the refused draft."""
    rule, distance = decided.rule, decided.distance

    def place(start: Tensor) -> Tensor:
        return ask(rule, start.unsqueeze(-1), distance)[0].value[:, 0, 0]

    def lost(start: Tensor) -> Tensor:
        return phi(start) * (1 - decided.chances(decided.coins(start.unsqueeze(-1)))[:, 0])

    probe = torch.linspace(-REACH, REACH, 4 * PROBES, dtype=torch.float64)
    refuses = decided.coins(probe.unsqueeze(-1))[:, 0] < 1
    steps = place(probe[refuses]).diff()
    rising = bool((steps > 0).all())
    if not rising and not bool((steps < 0).all()):
        raise NotOnTheLine("the replacement is no monotone function of the refused draft")
    last = int(torch.nonzero(refuses)[-1])
    end = inverse(
        lambda at: decided.coins(at.unsqueeze(-1))[:, 0].ge(1).double(),
        probe.new_full((1,), 0.5), probe[[last]], probe[[min(last + 1, len(probe) - 1)]],
    )  # fmt: skip

    def below(where: Tensor) -> Tensor:
        low = torch.full_like(where, -REACH)
        start = inverse(place, where, low, end.expand_as(low))
        mass = cumulative(lost, torch.cat((start, end)), -REACH)
        return mass[:-1] if rising else mass[-1] - mass[:-1]

    return below


def _raced(decided: Decisions) -> Below:
    """The uniform of the decision goes on to name a place, beyond which a second one draws from a law cut off there.

    With H the chance to be kept at a place: a draft below tau is refused with a uniform about H(tau), and the
    replacement lies beyond z with probability S(z) / S(tau). Both S and that it is a quotient are read from the rule;
    the mass below z is the integral of H'(tau) Phi(tau) (1 - S(z) / S(tau)) up to z.
    """
    rule, distance = decided.rule, decided.distance

    def meeting(place: Tensor) -> Tensor:
        return decided.coins(place.unsqueeze(-1))[:, 0]

    def place(named: Tensor, uniform: Tensor, start: float = -REACH) -> Tensor:
        far = _far(decided, len(named), start)
        return ask(rule, far, distance, accept=named.unsqueeze(-1), uniform=uniform)[0].value[:, 0, 0]

    origin = meeting(torch.full((1,), -REACH, dtype=torch.float64)) + 1e-300

    def beyond(where: Tensor) -> Tensor:
        low = torch.zeros_like(where)
        return 1 - inverse(lambda uniform: place(origin.expand_as(where), uniform), where, low, low + 1 - 2**-53)

    tape = GeneratorTape(2)
    tau = tape.uniform("tau", (PROBES,)) * (distance + 4) - 2
    tau = tau[meeting(tau) < 0.999]  # nearer to 1 a uniform has too few digits to name a place
    uniform = tape.uniform("uniform", tau.shape)
    found = place(meeting(tau), uniform)
    _same(found, place(meeting(tau), uniform, -9.0), "the replacement depends on the draft")
    _same(beyond(found), (1 - uniform) * beyond(tau), "the second draw is not of one law cut off")
    if not bool((meeting(torch.linspace(-9, distance + 9, PROBES, dtype=torch.float64)).diff() >= 0).all()):
        raise NotOnTheLine("the chance to be kept does not rise")
    step = 1e-3 / max(1.0, distance)

    def slope(at: Tensor) -> Tensor:
        near, far = (meeting(at + k * step) - meeting(at - k * step) for k in (1, 2))
        return (8 * near - far) / (12 * step)

    def left(at: Tensor, share: Tensor) -> Tensor:
        return slope(at) * normal_cdf(at) * (1 - share / beyond(at).clamp(min=1e-300)).clamp(0, 1)

    def below(where: Tensor) -> Tensor:
        order = where.argsort()
        ends = torch.cat((where.new_full((1,), -REACH), where[order].clamp(min=-REACH)))
        share = beyond(ends)
        # What was left below one end goes on to be left below the next, or lies between them.
        fresh = integrals(lambda at, cell: left(at, share[1:][cell]), ends[:-1], ends[1:], 1e-12)
        named = integrals(lambda at, _: slope(at) * normal_cdf(at), ends[:-1], ends[1:], 1e-12).cumsum(0)
        lost, sums = torch.zeros(()).double(), []
        for turn in range(len(where)):
            above = named[turn - 1] - lost if turn else lost
            lost = lost + above * (1 - share[turn + 1] / share[turn].clamp(min=1e-300)) + fresh[turn]
            sums.append(lost)
        return torch.empty_like(where).index_put((order,), torch.stack(sums))

    return below
