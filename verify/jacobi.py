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
from torch.nn.functional import one_hot, pad

from distributions.categorical import Categorical
from distributions.law import Law, trusted
from distributions.noise import Noise
from distributions.tape import Tape
from verify.records import Draft, Outcome
from verify.residual import log_ratio, residual_law

Index = tuple[Tensor, Tensor]
ENTRIES = ("uniform", "random", "repeat")


@dataclass(frozen=True)
class Jacobi:
    """One round of Jacobi decoding; subclasses say how later columns are redrafted.

    ``entry``: how a column enters the window: drawn from the ``uniform`` law and labelled with it; drawn uniformly at
    ``random`` or a ``repeat`` of its left neighbour, both labelled with the point mass at what was drawn. All three are
    exact; the uniform label is accepted more often. The window shrinks where the sequence ends. Raises ValueError for
    another name, TypeError on laws that are not Categorical.
    """

    entry: str = "uniform"

    def __post_init__(self) -> None:
        if self.entry not in ENTRIES:
            raise ValueError(f"entry must be one of {', '.join(ENTRIES)}, and is {self.entry!r}")

    # --- what a rule may replace -----------------------------------------------------------------------------------
    def accept(self, draft: Draft, target: Categorical, tape: Tape) -> tuple[Tensor, Tensor]:
        """The coins (rows, N) of all drafts, and their log-probabilities."""
        log_accept = log_ratio(draft.value, target, draft.law).clamp(max=0)
        log_accept = log_accept.masked_fill(~tested(draft, target.batch_shape[1]), -torch.inf)
        return tape.coin("accept", log_accept.exp()), log_accept

    def replacement(self, draft: Draft, target: Categorical, at: Index, tape: Tape) -> Tensor:
        """The tokens (M,) in place of the first rejected drafts, ``at`` these rows and nodes; ``tape`` is of M rows."""
        return residual_law(target[at], categorical(draft.law)[at]).sample(tape, "residual")

    def most(self, accept: Tensor, tape: Tape) -> Tensor:
        """The most tokens (rows,) that this round may commit, given all coins: every column of the window."""
        return torch.full((len(accept),), accept.shape[1] + 1)

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
        draft = changed(draft, law=categorical(draft.law))
        return self.turn(changed(draft, noise=self.noise(draft, target, tape)), target, tape)

    def turn(self, draft: Draft, target: Categorical, tape: Tape) -> Outcome:
        """The round, once the noise of the columns is there."""
        rows, nodes = draft.value.shape
        accept, log_accept = self.accept(draft, target[:, :nodes], tape)
        length = torch.minimum(accept.long().cumprod(1).sum(1) + 1, self.most(accept, tape))
        place, ends = torch.arange(nodes + 1), columns_left(draft)
        bonus = (place == nodes) & (length > nodes).unsqueeze(1)
        new = self.redraft(draft, target, accept, bonus | (place >= length.unsqueeze(1)) & (place < ends), tape)
        value = torch.cat([draft.value, new.value[:, -1:]], 1)
        at = torch.arange(rows), length - 1
        refused = torch.nonzero(~pad(accept, (0, 1), value=True)[at]).squeeze(1)
        if len(refused):
            at = refused, length[refused] - 1
            value[at] = self.replacement(draft, target, at, tape[refused])
        kept = accept & (place[:nodes] < length.unsqueeze(1))
        return Outcome(value, length, kept, log_accept, self.slide(new, length, ends, tape))

    def slide(self, new: Draft, moved: Tensor, ends: Tensor, tape: Tape) -> Draft:
        """The window after ``moved`` (rows,) columns have left: what stays of ``new``, then the columns that enter.

        Nothing enters at ``ends`` (rows, 1) and beyond, where the sequence has ended; such columns hold token 0.
        """
        law = categorical(new.law).probs
        (rows, columns), vocab = new.value.shape, law.shape[-1]
        place = moved.unsqueeze(1) + torch.arange(columns - 1)
        over, enters = place >= ends, (place >= columns) & (place < ends)
        index = torch.arange(rows).unsqueeze(1), place.clamp(max=columns - 1)
        value, law, noise = new.value[index], law[index], None if new.noise is None else new.noise[index]
        which = torch.nonzero(enters)[:, 0]  # a row for each column that enters it
        if len(which):
            fresh = None if noise is None else tape[which].noise("noise", (len(which), vocab))
            value[enters], law[enters], fresh = self.enter(new.value[which, -1], fresh, vocab, tape[which])
            noise = noise if noise is None or fresh is None else noise.put(enters, fresh)
        if bool(over.any()):
            value[over], law[over] = 0, 1 / vocab
        return Draft(value, trusted(Categorical, probs=law), new.parent, noise)

    def enter(self, left: Tensor, noise: Noise | None, vocab: int, tape: Tape) -> tuple[Tensor, Tensor, Noise | None]:
        """The tokens (M,) of new columns, the laws (M, V) they are labelled with, and their noise; ``left`` (M,) is the
        last token of the window.
        """
        flat = torch.full((len(left), vocab), 1 / vocab, dtype=torch.float64)
        if self.entry == "repeat":
            token = left
        elif self.entry == "uniform" and noise is not None:
            token, noise = noise.winner(flat, tape, "entry")
        else:
            token = tape.categorical("entry", flat)
        return token, flat if self.entry == "uniform" else one_hot(token, vocab).double(), noise


def tested(draft: Draft, columns: int) -> Tensor:
    """Which of the next ``columns`` (rows, columns) are decided now: those before the end of the sequence."""
    ends = columns_left(draft)
    return (torch.arange(columns) < ends) | (ends == 0)


def columns_left(draft: Draft) -> Tensor:
    """How many columns (rows, 1) the sequence still lacks, where the decoder says; more than any window otherwise."""
    return draft.value.new_full((len(draft.value), 1), 2**40) if draft.left is None else draft.left.unsqueeze(1)


def drawn(law: Categorical, wanted: Tensor, tape: Tape, site: str) -> Tensor:
    """A draw from each of the ``wanted`` laws, and token 0, without a draw, for the others."""
    token = torch.zeros(wanted.shape, dtype=torch.long)
    return token.index_put((wanted,), tape[torch.nonzero(wanted)[:, 0]].categorical(site, law.probs[wanted]))


def kept_noise(draft: Draft, vocab: int, tape: Tape) -> Noise:
    """The noise of the window's N columns and of the next one.

    The first window was drafted without any: its noise is drawn after the fact, given that the drafts won.
    """
    rows, nodes = draft.value.shape
    noise = draft.noise
    if noise is None:
        noise = tape.noise("noise", (rows, nodes, vocab)).given(draft.value, categorical(draft.law).probs)
    return noise.join([tape.noise("noise", (rows, 1, vocab))], 1)


def categorical(law: Law) -> Categorical:
    """The law itself. Raises TypeError unless it is Categorical."""
    if not isinstance(law, Categorical):
        raise TypeError(f"Jacobi decoding redraws tokens of a vocabulary and got a {type(law).__name__}")
    return law
