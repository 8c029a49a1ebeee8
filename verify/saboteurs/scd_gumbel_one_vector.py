"""One vector of Gumbel noise serves all columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.noise import Noise
from distributions.tape import Tape
from verify.records import Claim, Draft
from verify.verifiers.scd_gumbel import ScdGumbel


@dataclass(frozen=True)
class ScdGumbelOneVector(ScdGumbel):
    """The noise is drawn once and does not depend on the column, so that neighbours tend to be the same token.

    What a column was drawn with then says how the next one was.
    """

    claim: ClassVar[Claim] = Claim(
        exact=False,
        level="sequence",
        laws="categorical",
        reference="SCD 2510.24211 with noise that is not a function of the column",
        note="a table of noise without an index of position",
    )

    def noise(self, draft: Draft, target: Categorical, tape: Tape) -> Noise:
        (rows, nodes), vocab = draft.value.shape, target.probs.shape[-1]
        noise = tape.noise("noise", (rows, 1, vocab)) if draft.noise is None else draft.noise
        return noise[:, torch.zeros(nodes + 1, dtype=torch.long)]

    def redraft(self, draft: Draft, target: Categorical, accept: Tensor, wanted: Tensor, tape: Tape) -> Draft:
        assert draft.noise is not None
        noise, tokens = draft.noise[:, 0], []
        for column in range(wanted.shape[1]):
            token, noise = noise.winner(target.probs[:, column], tape, "redraft", wanted[:, column])
            tokens.append(token)
        whole = noise[torch.arange(len(wanted)).unsqueeze(1).expand(wanted.shape)]
        return Draft(torch.stack(tokens, 1), target, draft.parent, whole)

    def enter(self, left: Tensor, noise: Noise | None, vocab: int, tape: Tape) -> tuple[Tensor, Tensor, Noise | None]:
        token, label, _ = super().enter(left, None, vocab, tape)
        return token, label, None  # the columns beside it have the noise
