"""Named pairs of finite models, from harmless to hostile, whose truth is known exactly.

Every public function that takes a vocabulary and returns a Scenario is one: ``scenarios()`` finds it by its signature.
"""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distributions.autoregressive import Markov


@dataclass(frozen=True, eq=False)
class Scenario:
    """A drafter and a target over one vocabulary, and how many nodes are drafted; ``scenarios`` fills ``name`` in."""

    drafter: Markov
    target: Markov
    draft_length: int = 2
    name: str = ""

    @property
    def vocab(self) -> int:
        return self.target.vocab

    @property
    def contexts(self) -> Tensor:
        """Every context (V**order, order) of the longer memory: with different laws, so that mixed-up rows show."""
        order = max(self.target.order, self.drafter.order, 1)
        return torch.tensor(list(itertools.product(range(self.vocab), repeat=order)))


def scenarios(vocabs: Iterable[int] = (2, 3, 5)) -> dict[str, Scenario]:
    """Every scenario of this module at every vocabulary size, by name: ``function/vocab``."""
    found: dict[str, Scenario] = {}
    module = sys.modules[__name__]
    for vocab in vocabs:
        for name, maker in inspect.getmembers(module, inspect.isfunction):
            annotations = inspect.get_annotations(maker, eval_str=True)
            if not name.startswith("_") and annotations == {"vocab": int, "return": Scenario}:
                found[f"{name}/{vocab}"] = replace(maker(vocab), name=f"{name}/{vocab}")
    return found


def _first_order(rows: Tensor) -> Markov:
    """A model of order 1 from its laws (V + 1, V): after each token, then at the start."""
    return Markov(rows, 1)


def _mixed(vocab: int, seed: int, concentration: float = 1.0) -> Tensor:
    """Random laws (V + 1, V) of a first-order model."""
    return Markov.random(vocab, 1, seed, concentration).table


def _cyclic(vocab: int) -> Tensor:
    """The token (V + 1,) that follows each context when every context points at another one."""
    return (torch.arange(vocab + 1) + 1) % vocab


def random_first_order(vocab: int) -> Scenario:
    """Two random models that look at the last token."""
    return Scenario(Markov.random(vocab, 1, 11), Markov.random(vocab, 1, 12))


def random_second_order(vocab: int) -> Scenario:
    """The target looks at two tokens and the drafter at one, so that their laws disagree in context too."""
    return Scenario(Markov.random(vocab, 1, 21), Markov.random(vocab, 2, 22))


def longer_memory_drafter(vocab: int) -> Scenario:
    """The drafter looks further back than the target."""
    return Scenario(Markov.random(vocab, 2, 31), Markov.random(vocab, 1, 32))


def one_node(vocab: int) -> Scenario:
    """A draft of a single node."""
    return Scenario(Markov.random(vocab, 1, 41), Markov.random(vocab, 1, 42), draft_length=1)


def three_nodes(vocab: int) -> Scenario:
    """A draft of three nodes, on a first-order pair close enough that the bonus is often reached."""
    target = _mixed(vocab, 51)
    return Scenario(_first_order(0.8 * target + 0.2 * _mixed(vocab, 52)), _first_order(target), draft_length=3)


def equal_laws(vocab: int) -> Scenario:
    """Drafter and target are one model: nothing may be rejected, and the residual is never reached."""
    model = Markov.random(vocab, 1, 61)
    return Scenario(model, model)


def nearly_equal(vocab: int) -> Scenario:
    """Laws 1e-12 apart: a rejection is all but impossible, and its residual is all but rounding."""
    target = _mixed(vocab, 71)
    return Scenario(_first_order(target * (1 + 1e-12 * _mixed(vocab, 72))), _first_order(target))


def one_rounding_apart(vocab: int) -> Scenario:
    """Laws that differ in the last bit only, so that a residual may have no mass at all."""
    target = _mixed(vocab, 81)
    return Scenario(_first_order(torch.nextafter(target, torch.ones(()).double())), _first_order(target))


def disjoint_supports(vocab: int) -> Scenario:
    """The drafter proposes even tokens, the target emits odd ones: every draft must be rejected."""
    odd = (torch.arange(vocab) % 2).double()
    return Scenario(_first_order(_mixed(vocab, 91) * (1 - odd)), _first_order(_mixed(vocab, 92) * odd))


def drafter_misses_tokens(vocab: int) -> Scenario:
    """The drafter's support is smaller: one token, another in every context, reaches the output by residual only."""
    drafter = _mixed(vocab, 101).scatter(1, _cyclic(vocab).unsqueeze(1), 0.0)
    return Scenario(_first_order(drafter), Markov.random(vocab, 1, 102))


def target_misses_tokens(vocab: int) -> Scenario:
    """The target's support is smaller: one drafted token, another in every context, must never be kept."""
    target = _mixed(vocab, 111).scatter(1, _cyclic(vocab).unsqueeze(1), 0.0)
    return Scenario(Markov.random(vocab, 1, 112), _first_order(target))


def zeros_in_both(vocab: int) -> Scenario:
    """Each law lacks a token of its own, the target its first in one context: index 0 is as likely wrong as any."""
    drafter = _mixed(vocab, 121).scatter(1, ((_cyclic(vocab) + 1) % vocab).unsqueeze(1), 0.0)
    target = _mixed(vocab, 122).scatter(1, _cyclic(vocab).unsqueeze(1), 0.0)
    return Scenario(_first_order(drafter), _first_order(target))


def point_mass_drafter(vocab: int) -> Scenario:
    """A greedy drafter: one token in every context."""
    return Scenario(_first_order(torch.nn.functional.one_hot(_cyclic(vocab), vocab)), Markov.random(vocab, 1, 132))


def point_mass_target(vocab: int) -> Scenario:
    """A greedy target: every rule must emit its one sequence."""
    return Scenario(Markov.random(vocab, 1, 141), _first_order(torch.nn.functional.one_hot(_cyclic(vocab), vocab)))


def ties(vocab: int) -> Scenario:
    """Equal masses on both sides: a uniform drafter, and a target with its mass in two equal heaps and equal crumbs."""
    heaps = 1 + 2 * torch.nn.functional.one_hot(_cyclic(vocab), vocab)
    return Scenario(_first_order(torch.ones(vocab + 1, vocab)), _first_order(heaps + heaps.roll(1, 1)))


def subnormal(vocab: int) -> Scenario:
    """The smallest numbers there are: masses of 5e-324 and 1e-310 beside ordinary ones, on either side."""
    place = _cyclic(vocab).unsqueeze(1)
    drafter = _mixed(vocab, 161).scatter(1, place, 5e-324)
    target = _mixed(vocab, 162).scatter(1, (place + 1) % vocab, 1e-310)
    return Scenario(_first_order(drafter), _first_order(target))


def peaked_drafter(vocab: int) -> Scenario:
    """A drafter almost sure of one token against an almost flat target."""
    peak = torch.nn.functional.one_hot(_cyclic(vocab), vocab) + 1e-4 * _mixed(vocab, 171)
    return Scenario(_first_order(peak), Markov.random(vocab, 1, 172, 50.0))


def peaked_target(vocab: int) -> Scenario:
    """An almost flat drafter against a target almost sure of one token."""
    peak = torch.nn.functional.one_hot(_cyclic(vocab), vocab) + 1e-4 * _mixed(vocab, 181)
    return Scenario(Markov.random(vocab, 1, 182, 50.0), _first_order(peak))


def sparse(vocab: int) -> Scenario:
    """Spiky laws of wide range on both sides, whose ratios span many orders of magnitude."""
    return Scenario(Markov.random(vocab, 1, 191, 0.1), Markov.random(vocab, 1, 192, 0.1))
