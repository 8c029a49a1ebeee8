"""Greedy block verification: as long a block as this round can keep, and the debt is paid by the next rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome
from verify.residual import log_ratio, residual_law
from verify.verifiers.block import both_categorical, keep_longest, times


@dataclass(frozen=True)
class GreedyBlock:
    """As block, with weights that are not cut at 1 and a target that changes for the rest of the block (the greedy
    variant of Sun et al. 2403.10444, derived again here).

    With P, Q the laws of whole prefixes from this round's start, prefix x is kept with probability min(1, w(x)),
    w = P / Q, so that sum min(P, Q) of every length is kept in the mean: by the cap on one draft, no round keeps more.
    The coins are those of block (S / (S + 1 - w) below weight 1, certain from there on) for the same reason. But
    where w > 1 the drafts that stop at x are too few to have law P: P(xy) - min(P, Q)(xy) = (P - Q)+(xy) is still to
    come from all who left the drafts at x or before. So each of them, until the N positions of this round are filled,
    draws its next token from (w p - q)+ in place of p: then (P - Q)+ is what all together fill. The next round takes
    this law as its target, and adds its own debt: up to N - 1 debts are open at a time. ``memory`` (rows, N - 1) holds
    their weights: column j that of the debt with j + 1 positions left, log w, or -inf where there is none.

    One round alone is not exact (lemma L5), all of them together are. Raises TypeError on laws that are not
    Categorical.
    """

    claim: ClassVar[Claim] = Claim(
        exact=True, reference="Sun et al. 2403.10444, greedy variant", level="sequence", laws="categorical"
    )

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """The longest kept prefix and one token more. ``target`` has batch (rows, N + 1)."""
        law, draft_law = both_categorical("greedy_block", target, draft)
        rows, nodes = draft.value.shape
        memory = draft.memory
        if memory is None:
            memory = torch.full((rows, nodes - 1), -torch.inf, dtype=torch.float64, device=draft.value.device)
        weights, laws = [], [law]
        for left, start in enumerate([*memory.unbind(1), memory.new_zeros(rows)], 1):  # the oldest debt first
            ratio = log_ratio(draft.value, law[:, :-1], draft_law)
            weight = [start]
            for step in ratio.unbind(1):
                weight.append(times(weight[-1], step))
            weights.append(torch.stack(weight, 1))
            if left < nodes:
                # Where there is no debt the weight is 0, the residual has no mass, and the law stays as it is.
                owed = residual_law(law[:, :left], draft_law[:, :left], weights[-1][:, :left])
                law = Categorical(torch.cat([owed.probs, law.probs[:, left:]], 1))
                laws.append(law)
        made = keep_longest(draft, law, weights[-1], tape)
        return Outcome(
            made.value, made.length, made.kept, made.log_accept, memory=_owed(made, draft_law, weights, laws)
        )


def _owed(made: Outcome, draft: Categorical, weights: list[Tensor], laws: list[Categorical]) -> Tensor:
    """The weight of every debt after what this round emitted, moved to the column of the positions it has left."""
    nodes = len(weights)
    last = (made.length - 1).clamp(max=nodes - 1)  # after a bonus there is no debt at all
    row = torch.arange(len(last), device=last.device)
    token = made.value[row, last]
    after = [
        times(weight[row, last], log_ratio(token, law[row, last], draft[row, last]))
        for weight, law in zip(weights, laws, strict=True)
    ]
    padded = torch.nn.functional.pad(torch.stack(after, 1), (0, nodes + 1), value=-torch.inf)
    return padded.gather(1, made.length.unsqueeze(1) + torch.arange(nodes - 1, device=last.device))
