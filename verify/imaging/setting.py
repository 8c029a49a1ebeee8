"""What is decoded, and how: the models, the rule, and the sampler that both models share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from distributions.images import Images, digits, mnist
from distributions.mar.backbone import Mar
from distributions.mar.causal import CausalSequence
from distributions.mar.causal_network import CausalMar
from distributions.mar.diffusion import LENGTH, Sampler
from distributions.mar.digits import trained
from distributions.mar.sequence import MaskedSequence, Start
from distributions.model import Model
from distributions.tape import GeneratorTape
from verify.decode import Trace, decode
from verify.errors import SubjectError
from verify.verifier import Verifier, catalog

IMAGES = {"mnist": mnist, "digits": digits}
ALONE = "ancestral"
"""The name of no rule at all: the target draws every token itself."""


def rules() -> dict[str, type[Verifier]]:
    """The rules on paths by name."""
    return {name: kind for name, kind in catalog().items() if kind.claim.laws == "path"}


@dataclass(frozen=True)
class Setting:
    """``model``: DATA.KIND, mnist or digits, mar or causal. ``verifier``: a rule on paths, or ``ancestral``.
    ``drafter``: the small model of the pair, or ``none`` for Jacobi decoding, whose first window knows no token.
    ``prefill``: the share of the tokens that the target draws first. ``steps`` of the diffusion chain.

    Raises SubjectError for names that there are not, and shares or lengths that make no sense.
    """

    model: str = "mnist.causal"
    verifier: str = "coalescing"
    drafter: str = "small"
    draft_length: int = 4
    prefill: float = 0.0
    guidance: float = 1.0
    temperature: float = 1.0
    steps: int = 25
    seed: int = 0
    device: str = field(default="cpu", compare=False)

    def __post_init__(self) -> None:
        data, _, kind = self.model.partition(".")
        if data not in IMAGES or kind not in ("mar", "causal"):
            raise SubjectError(f"no model {self.model!r}; choose mnist or digits, and mar or causal: mnist.causal")
        if self.verifier not in (*rules(), ALONE):
            raise SubjectError(f"{self.verifier!r} verifies no paths; choose one of {ALONE}, {', '.join(rules())}")
        if self.drafter not in ("small", "none"):
            raise SubjectError(f"drafter is {self.drafter!r}; choose small or none")
        if not 0 <= self.prefill <= 1 or self.draft_length < 1 or not 2 <= self.steps <= LENGTH:
            raise SubjectError(f"give a prefill from 0 to 1, a draft length of 1 or more, and from 2 to {LENGTH} steps")
        if not (0 < self.temperature < math.inf and math.isfinite(self.guidance)):
            raise SubjectError("give a positive temperature, and a guidance that is a number, 1 for none")
        if not 0 <= self.seed < 1 << 40:
            raise SubjectError("give a seed from 0 to 2^40 - 1")

    @cached_property
    def images(self) -> Images:
        """The data that the models imitate."""
        return IMAGES[self.model.partition(".")[0]]()

    @property
    def sampler(self) -> Sampler:
        """MAR's chain, entered one step in and with the last step's noise: one on which drafts can be verified."""
        return Sampler(
            guidance=self.guidance, temperature=self.temperature, steps=self.steps, last_noise=True, late=True
        )

    @cached_property
    def models(self) -> tuple[Any, Model[Any]]:
        """Target and drafter."""
        data, _, kind = self.model.partition(".")
        networks = [trained(kind, data, role).to(self.device) for role in ("target", "drafter")]
        target, drafter = (
            MaskedSequence(each, self.sampler) if isinstance(each, Mar) else CausalSequence(each, self.sampler)
            for each in networks
        )
        if self.drafter == "none":
            assert isinstance(networks[0], (Mar, CausalMar))
            return target, Forgetful(target)
        small: Any = drafter
        return target, small

    def decoded(self, batch: int, number: int) -> tuple[Trace, Tensor, Tensor]:
        """Images number ``number * batch`` and so on, of classes 0, 1, 2, ... in turn: their trace, where in the image
        each token goes (batch, N), and the labels (batch,).
        """
        target, drafter = self.models
        tape = GeneratorTape((self.seed << 20) + number, self.device)
        length = self.images.length
        condition, place, label = begun(target, batch, number * batch, length, tape)
        with torch.no_grad():
            if self.verifier == ALONE:
                rule = rules()["coalescing"]()
                return decode(target, drafter, rule, 1, length, tape, batch, condition, length), place, label
            rule, first = rules()[self.verifier](), math.ceil(round(self.prefill * length, 9))
            trace = decode(target, drafter, rule, self.draft_length, length, tape, batch, condition, first)
            return trace, place, label


def begun(target: Any, rows: int, first: int, length: int, tape: GeneratorTape) -> tuple[Any, Tensor, Tensor]:
    """What ``rows`` images of ``length`` tokens, number ``first`` and so on, start from: their condition, where in the
    image each token goes (rows, N), and their classes, 0 to 9 in turn. An order, for a model that has one, is drawn.
    """
    label = (torch.arange(rows) + first).remainder(10).to(tape.device)
    if isinstance(target, MaskedSequence):
        start = Start.random(tape, rows, length, label)
        return start, start.order.flip(1), label  # an image is filled from the end of its order
    return label, torch.arange(length).expand(rows, -1), label


@dataclass(frozen=True, eq=False)
class Forgetful:
    """A model that draws every token as the other draws the next one, whatever is drafted: the first window of Jacobi
    decoding. One evaluation of the other for a whole window.
    """

    model: Any

    def start(self, rows: int, condition: Any = None) -> Any:
        return self.model.start(rows, condition)

    def law(self, state: Any, value: Tensor | None = None, parent: Tensor | None = None) -> Any:
        """The law of the next token, at every node."""
        law = self.model.law(state)
        return law if value is None else law[:, [0] * (value.shape[1] + 1)]

    def extend(self, state: Any, value: Tensor, length: Tensor) -> Any:
        return self.model.extend(state, value, length)

    def select(self, state: Any, rows: Tensor) -> Any:
        return self.model.select(state, rows)
