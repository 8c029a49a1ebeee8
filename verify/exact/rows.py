"""The exact law of one round, by enumerating every draw of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distributions.enumeration import EnumerationTape, enumerate_tape
from distributions.model import Model
from verify.couplings import sibling_cap, subset_cap
from verify.decode import Round, State, depths, parents, policy, propose
from verify.exact.leaves import Leaves, after, apart, check_tokens, together
from verify.exact.prefixes import conditionals, encode, product, table
from verify.verifier import Verifier


@dataclass(frozen=True, eq=False)
class RoundLaw:
    """The exact law of one round in each of ``rows`` contexts.

    ``law`` and ``truth`` (rows, V**D): as many tokens as a round can emit, those that it did not emit continued by the
    target (lemma L5: the round is exact iff the two agree). ``joint[i]`` (rows, V**i, V): probability that the round
    emits this prefix of i tokens and then this one; ``wanted[i]``, the target's law of it given the prefix.
    ``expected_length``, ``acceptance`` (the first emitted token is a drafted one), ``overlap`` (the most that a
    lossless rule may accept) and ``dropped`` (mass not enumerated, the error bar of all the rest) are (rows,). ``kept``
    and ``predicted`` (rows, N): how often each node is kept, and how often by ``log_accept``; ``prefix_closed``:
    whether no node is ever kept below one that is not. ``leaves``: runs.
    """

    law: Tensor
    truth: Tensor
    joint: tuple[Tensor, ...]
    wanted: tuple[Tensor, ...]
    expected_length: Tensor
    acceptance: Tensor
    overlap: Tensor
    dropped: Tensor
    kept: Tensor
    predicted: Tensor
    prefix_closed: bool
    leaves: int

    @property
    def tv(self) -> Tensor:
        """Total variation (rows,) between ``law`` and ``truth``."""
        return (self.law - self.truth).abs().sum(-1) / 2

    @property
    def reach(self) -> list[Tensor]:
        """For each position i (rows, V**i): the probability of emitting this prefix and going on to position i."""
        return [joint.sum(-1) for joint in self.joint]

    @property
    def departure(self) -> list[Tensor]:
        """For each position i (rows, V**i): ``reach`` times the total variation of token i, given the prefix, from the
        target's law. All are zero iff the round is exact.
        """
        return [
            (joint - joint.sum(-1, keepdim=True) * wanted).abs().sum(-1) / 2
            for joint, wanted in zip(self.joint, self.wanted, strict=True)
        ]

    def worst(self) -> tuple[int, int, int]:
        """(position, row, prefix) of the largest departure; the prefix as a number, see ``digits``."""
        position, part = max(enumerate(self.departure), key=lambda item: float(item[1].max()))
        return position, *divmod(int(part.argmax()), part.shape[1])


def exact_rows(
    verifier: Verifier,
    target: Model[Any],
    drafter: Model[Any],
    contexts: Tensor,
    draft_length: int,
    *,
    min_mass: float = 0.0,
    max_leaves: int = 2_000_000,
) -> RoundLaw:
    """The exact law of one round, draft included, after each row of ``contexts`` (rows, L).

    All leaves of all rows run in one batch. Raises RowsDependent for a verifier whose rows are not independent (two
    contexts show it, one does not), ValueError for tokens outside the vocabulary, NotEnumerable at a continuous draw,
    EnumerationExploded past ``max_leaves``.
    """
    step = Round(target, drafter, verifier, draft_length)
    return _round_law(step, contexts, apart, min_mass, max_leaves)


def exact_batch(
    verifier: Verifier,
    target: Model[Any],
    drafter: Model[Any],
    contexts: Tensor,
    draft_length: int,
    *,
    min_mass: float = 0.0,
    max_leaves: int = 100_000,
) -> RoundLaw:
    """As ``exact_rows``, for a verifier whose rows depend on one another: the law of each row of this very batch.

    The leaves are the combinations of all rows' answers and run one by one: for two or three contexts, short drafts and
    few tokens.
    """
    step = Round(target, drafter, verifier, draft_length)
    return _round_law(step, contexts, together, min_mass, max_leaves)


def _round_law(step: Round, contexts: Tensor, leaves_of: Leaves, min_mass: float, max_leaves: int) -> RoundLaw:
    target, draft_length = step.target, step.draft_length
    rows = contexts.shape[0]
    parent = parents(step.verifier, draft_length)
    deep = int(depths(parent).max()) + 2
    state = replace(after(step, contexts), left=torch.zeros(rows, dtype=torch.long))  # no carry is asked for
    wanted = conditionals(target, state.target, rows, deep)
    vocab = wanted[0].shape[-1]
    emitted = [torch.zeros(rows, vocab**length, dtype=torch.float64) for length in range(1, deep + 1)]
    scalars = torch.zeros(rows, 3, dtype=torch.float64)  # expected length, acceptance, dropped
    kept = torch.zeros(rows, draft_length, dtype=torch.float64)
    predicted = torch.zeros_like(kept)
    closed, leaves = True, 0
    for leaf in leaves_of(step, state, rows, min_mass, max_leaves):
        check_tokens(leaf, vocab, deep)
        for length in range(1, deep + 1):
            mine = leaf.length == length
            code = encode(leaf.tokens[mine, :length], vocab)
            emitted[length - 1].index_put_((leaf.index[mine], code), leaf.mass[mine], accumulate=True)
        hit = (leaf.draft[:, parent < 0] == leaf.tokens[:, :1]).any(-1)
        scalar = torch.stack([leaf.mass * leaf.length, leaf.mass * hit, leaf.dropped], -1)
        scalars.index_add_(0, leaf.index, scalar)
        above = torch.where(parent < 0, True, leaf.kept[:, parent.clamp(min=0)])
        closed &= not bool((leaf.kept & ~above).any())
        seen = above & ~_earlier_sibling(leaf.kept, parent)
        mass = leaf.mass.unsqueeze(-1)
        kept.index_add_(0, leaf.index, mass * leaf.kept)
        predicted.index_add_(0, leaf.index, mass * torch.where(seen, leaf.log_accept.exp(), 0.0))
        leaves += len(leaf.index)
    law = emitted[0]
    for mass, step_law in zip(emitted[1:], wanted[1:], strict=True):
        law = mass + (law.unsqueeze(-1) * step_law).flatten(1)
    return RoundLaw(
        law=law,
        truth=product(wanted),
        joint=_joint(emitted, wanted),
        wanted=tuple(wanted),
        expected_length=scalars[:, 0],
        acceptance=scalars[:, 1],
        overlap=_cap(step, state, wanted[0][:, 0]),
        dropped=scalars[:, 2],
        kept=kept,
        predicted=predicted,
        prefix_closed=closed,
        leaves=leaves,
    )


def _cap(step: Round, state: State, target: Tensor) -> Tensor:
    """The most (rows,) that a lossless rule may accept of the siblings at the root, drawn as this verifier has them."""
    rows, count = target.shape[0], int((parents(step.verifier, step.draft_length) < 0).sum())
    own = policy(step.verifier)
    if not hasattr(step.verifier, "drafts"):
        return sibling_cap(target, table(step.drafter.law(state.drafter))[:, 0], count)
    root = torch.full((count,), -1)

    def run(index: Tensor, tape: EnumerationTape) -> Tensor:
        return propose(step.drafter, step.drafter.select(state.drafter, index), root, tape, own).value

    found = enumerate_tape(run, rows)
    index, mass = (torch.cat([batch[part] for batch in found]) for part in (0, 1))
    values = torch.cat([batch[3] for batch in found])
    if count == 1:
        drawn = torch.zeros_like(target).index_put((index, values[:, 0]), mass, accumulate=True)
        return sibling_cap(target, drawn, 1)
    caps = []
    for row in range(rows):
        seen, drafts = torch.unique(values[index == row], return_inverse=True)  # others would only add to 1 + target(H)
        caps.append(subset_cap(target[[row]][:, seen], drafts[None], mass[index == row][None]))
    return torch.cat(caps)


def _joint(emitted: list[Tensor], wanted: list[Tensor]) -> tuple[Tensor, ...]:
    """``RoundLaw.joint`` of every position: the rounds that emit at least so many tokens."""
    joint = []
    longer = torch.zeros(())
    for mass, law in zip(reversed(emitted), reversed(wanted), strict=True):
        joint.append((mass + longer).reshape(law.shape))
        longer = joint[-1].sum(-1)
    return tuple(reversed(joint))


def _earlier_sibling(kept: Tensor, parent: Tensor) -> Tensor:
    """Whether an earlier sibling of each node was kept, so that the node was not examined."""
    earlier = (parent.unsqueeze(0) == parent.unsqueeze(1)).tril(-1)
    return (kept.unsqueeze(1) & earlier).any(-1)
