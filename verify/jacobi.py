"""Jacobi decoding: a window of drafts that is verified, redrafted from the target's new laws, and moved on.

The window holds N drafts (x_j, q_j), j = n + 1 .. n + N, and one parallel evaluation of the target gives the laws p_j
of those columns and of one column more. A round commits the longest accepted prefix and one token, redrafts every later
column from p_j, labels it with the law it then has, and lets as many new columns enter as were committed. The rules
differ in how a later column is redrafted; exactness needs only this (``column-causal randomness``):

    given all randomness of the columns before j, the draft x_j has the law q_j it is labelled with, and whether column
    j is tested now is decided by those columns alone.

Then the token committed at column j has the law p_j = target(. | committed prefix), whatever the rounds before did, and
the sequence has the target's law by the chain rule. Song et al. (SJD) 2410.01699; SCD 2510.24211.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as changed

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.law import Law
from distributions.noise import Noise
from distributions.tape import Tape
from verify.records import Draft, Outcome
from verify.residual import log_ratio, residual_law

ENTRIES = ("uniform", "random", "repeat")


@dataclass(frozen=True)
class Jacobi:
    """One round of Jacobi decoding; subclasses say how later columns are redrafted.

    ``entry``: how a column enters the window: drawn from the ``uniform`` law and labelled with it; drawn uniformly at
    ``random`` or a ``repeat`` of its left neighbour, both labelled with the point mass at what was drawn. All three are
    exact; the uniform label is accepted more often. Raises ValueError for another name, TypeError on laws that are not
    Categorical.
    """

    entry: str = "uniform"

    def __post_init__(self) -> None:
        if self.entry not in ENTRIES:
            raise ValueError(f"entry must be one of {', '.join(ENTRIES)}, and is {self.entry!r}")

    # --- what a rule may replace -----------------------------------------------------------------------------------
    def accept(self, draft: Draft, target: Categorical, tape: Tape) -> tuple[Tensor, Tensor]:
        """The coins (rows, N) of all drafts, and their log-probabilities."""
        log_accept = log_ratio(draft.value, target, draft.law).clamp(max=0)
        return tape.coin("accept", log_accept.exp()), log_accept

    def replacement(self, target: Categorical, draft: Draft, node: Tensor, tape: Tape) -> Tensor:
        """The token (rows,) in place of the first rejected draft, at ``node`` (rows,)."""
        rows = torch.arange(len(node))
        return residual_law(target[rows, node], categorical(draft.law)[rows, node]).sample(tape, "residual")

    def redraft(self, draft: Draft, target: Categorical, accept: Tensor, wanted: Tensor, tape: Tape) -> Draft:
        """New drafts for the ``wanted`` ones of the N + 1 columns, each with its law; the others are not looked at.

        ``draft`` has N columns, and their N + 1 noises where the rule keeps any.
        """
        raise NotImplementedError

    def noise(self, draft: Draft, target: Categorical, tape: Tape) -> Noise | None:
        """The noise (rows, N + 1) of the window's columns, for rules that keep any."""
        return None

    # --- the round ---------------------------------------------------------------------------------------------------
    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """Commit a prefix and one token more; ``carry`` is the next window. ``target`` has batch (rows, N + 1)."""
        target = categorical(target)
        rows, nodes = draft.value.shape
        draft = changed(draft, noise=self.noise(draft, target, tape))
        accept, log_accept = self.accept(draft, target[:, :nodes], tape)
        kept = accept.long().cumprod(1).bool()
        count = kept.sum(1)
        column = torch.arange(nodes + 1, device=count.device)
        # The last column is drawn in every round: it is the bonus where all drafts were kept, and a draft elsewhere.
        new = self.redraft(draft, target, accept, (column > count.unsqueeze(1)) | (column == nodes), tape)
        value = torch.cat([draft.value, new.value[:, -1:]], 1)
        short = torch.nonzero(count < nodes).squeeze(1)
        if len(short):
            value[short, count[short]] = self.replacement(target[short], draft[short], count[short], tape[short])
        return Outcome(value, count + 1, kept, log_accept, self.slide(new, count + 1, tape))

    def slide(self, new: Draft, moved: Tensor, tape: Tape) -> Draft:
        """The window after ``moved`` (rows,) columns have left: what stays of ``new``, then the columns that enter."""
        law = categorical(new.law).probs
        (rows, columns), vocab = new.value.shape, law.shape[-1]
        values, laws, noises = [new.value], [law], [] if new.noise is None else [new.noise]
        for place in range(1, int(moved.max())):
            some = torch.nonzero(moved > place).squeeze(1)  # the others need no further column
            left = values[-1][some, -1:]
            noise = tape[some].noise("noise", (len(some), 1, vocab)) if noises else None
            token, label, noise = self.enter(left, vocab, noise, tape[some])
            values.append(left.new_zeros((rows, 1)).index_put((some,), token))
            laws.append(_flat(rows, vocab).index_put((some,), label))
            if noise is not None:
                order = torch.cat([some, torch.nonzero(moved <= place).squeeze(1)]).argsort()
                rest = torch.zeros(rows - len(some), dtype=torch.long)
                noises.append(noise.join([noise[rest]], 0)[order])  # any noise for rows that will not look at it
        at = torch.arange(rows).unsqueeze(1), moved.unsqueeze(1) + torch.arange(columns - 1)
        kept = noises[0].join(noises[1:], 1)[at] if noises else None
        return Draft(torch.cat(values, 1)[at], Categorical(torch.cat(laws, 1))[at], new.parent, kept)

    def enter(self, left: Tensor, vocab: int, noise: Noise | None, tape: Tape) -> tuple[Tensor, Tensor, Noise | None]:
        """The token (rows, 1) of a new column, the law (rows, 1, V) it is labelled with, and its noise; ``left`` (rows,
        1) is the token before it.
        """
        flat = _flat(len(left), vocab)
        if self.entry == "repeat":
            token = left
        elif self.entry == "uniform" and noise is not None:
            token, noise = noise.winner(flat, tape, "entry")
        else:
            token = tape.categorical("entry", flat)
        return token, flat if self.entry == "uniform" else _point(token, vocab), noise


def drawn(law: Categorical, wanted: Tensor, tape: Tape, site: str) -> Tensor:
    """A draw from each of the ``wanted`` laws, and token 0, without a draw, for the others."""
    nothing = _point(torch.zeros(wanted.shape, dtype=torch.long), law.probs.shape[-1])
    return tape.categorical(site, torch.where(wanted.unsqueeze(-1), law.probs, nothing))


def kept_noise(draft: Draft, vocab: int, tape: Tape) -> Noise:
    """The noise of the window's N columns and of the next one.

    The first window was drafted without any: its noise is drawn after the fact, given that the drafts won.
    """
    rows, nodes = draft.value.shape
    noise = draft.noise
    if noise is None:
        noise = tape.noise("noise", (rows, nodes, vocab)).given(draft.value, categorical(draft.law).probs)
    return noise.join([tape.noise("noise", (rows, 1, vocab))], 1)


def _flat(rows: int, vocab: int) -> Tensor:
    return torch.full((rows, 1, vocab), 1 / vocab, dtype=torch.float64)


def categorical(law: Law) -> Categorical:
    if not isinstance(law, Categorical):
        raise TypeError(f"Jacobi decoding redraws tokens of a vocabulary and got a {type(law).__name__}")
    return law


def _point(token: Tensor, vocab: int) -> Tensor:
    return torch.nn.functional.one_hot(token, vocab).double()
