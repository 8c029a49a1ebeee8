"""Exact laws of verifiers on finite models, by enumerating every draw: of one round, and of a decoded sequence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.distinct import distinct
from distributions.enumeration import EnumerationTape, enumerate_tape
from distributions.model import Model
from verify.couplings import sibling_cap, subset_cap
from verify.decode import Round, State, depths, parents, policy, propose
from verify.leaves import Leaf, Leaves, apart, together
from verify.records import Draft
from verify.verifier import Verifier


def encode(tokens: Tensor, vocab: int) -> Tensor:
    """The number (*batch) whose digits in base ``vocab``, first token first, are ``tokens`` (*batch, L)."""
    code = torch.zeros(tokens.shape[:-1], dtype=torch.long)
    for token in tokens.unbind(-1):
        code = code * vocab + token
    return code


def digits(code: Tensor, length: int, vocab: int) -> Tensor:
    """The tokens (*batch, L) of a number: the inverse of ``encode``."""
    return code.unsqueeze(-1) // vocab ** torch.arange(length - 1, -1, -1) % vocab


def conditionals(target: Model[Any], state: Any, rows: int, length: int) -> list[Tensor]:
    """The target's law (rows, V**i, V) of token i after each prefix of i tokens, for i below ``length``."""
    found: list[Tensor] = []
    vocab = _probs(target.law(target.select(state, torch.arange(rows)))).shape[-1]
    for place in range(length):
        size = vocab**place
        here = target.select(state, torch.arange(rows).repeat_interleave(size))
        if place:
            prefix = digits(torch.arange(size), place, vocab).repeat(rows, 1)
            here = target.extend(here, prefix, torch.full((rows * size,), place))
        found.append(_probs(target.law(here))[:, 0].reshape(rows, size, vocab))
    return found


def _probs(law: Any) -> Tensor:
    if not isinstance(law, Categorical):
        raise TypeError(f"enumeration needs models over a finite vocabulary and got a {type(law).__name__}")
    return law.probs


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
    state = replace(_after(step, contexts), left=torch.zeros(rows, dtype=torch.long))  # no carry is asked for
    wanted = conditionals(target, state.target, rows, deep)
    vocab = wanted[0].shape[-1]
    emitted = [torch.zeros(rows, vocab**length, dtype=torch.float64) for length in range(1, deep + 1)]
    scalars = torch.zeros(rows, 3, dtype=torch.float64)  # expected length, acceptance, dropped
    kept = torch.zeros(rows, draft_length, dtype=torch.float64)
    predicted = torch.zeros_like(kept)
    closed, leaves = True, 0
    for leaf in leaves_of(step, state, rows, min_mass, max_leaves):
        _check_tokens(leaf, vocab, deep)
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
        truth=_product(wanted),
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
        return sibling_cap(target, _probs(step.drafter.law(state.drafter))[:, 0], count)
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


def _product(wanted: list[Tensor]) -> Tensor:
    """The law (rows, V**L) of L tokens from their conditionals."""
    law = wanted[0][:, 0]
    for step in wanted[1:]:
        law = (law.unsqueeze(-1) * step).flatten(1)
    return law


def _earlier_sibling(kept: Tensor, parent: Tensor) -> Tensor:
    """Whether an earlier sibling of each node was kept, so that the node was not examined."""
    earlier = (parent.unsqueeze(0) == parent.unsqueeze(1)).tril(-1)
    return (kept.unsqueeze(1) & earlier).any(-1)


def _after(step: Round, contexts: Tensor, condition: Tensor | None = None) -> State:
    """The state after each row of ``contexts`` (rows, L)."""
    rows, length = contexts.shape
    state = step.start(rows, condition)
    return step.extend(state, contexts, torch.full((rows,), length)) if length else state


def _check_tokens(leaf: Leaf, vocab: int, deep: int) -> None:
    counted = torch.arange(leaf.tokens.shape[1]) < leaf.length.unsqueeze(-1)
    tokens = leaf.tokens[counted]
    if int(leaf.length.max()) > deep or bool(((tokens < 0) | (tokens >= vocab)).any()):
        raise ValueError(
            f"a round emitted up to {int(leaf.length.max())} tokens in {int(tokens.min())}..{int(tokens.max())}; "
            f"at most {deep} tokens in 0..{vocab - 1} are possible"
        )


@dataclass(frozen=True, eq=False)
class ChainLaw:
    """The exact law of a whole decoded sequence: ``law`` and ``truth`` (V**length,), the expected number of ``rounds``,
    and ``dropped``, the mass not enumerated. ``states``: distinct states visited. Under several conditions ``law`` and
    ``truth`` have a row for each, ``rounds`` and ``dropped`` are sums, and ``tv`` is the largest.
    """

    law: Tensor
    truth: Tensor
    rounds: float
    dropped: float
    states: int

    @property
    def tv(self) -> float:
        """Total variation between ``law`` and ``truth``."""
        return float((self.law - self.truth).abs().sum(-1).max() / 2)


def exact_chain(
    target: Model[Any],
    drafter: Model[Any],
    verifier: Verifier,
    draft_length: int,
    length: int,
    *,
    condition: Tensor | None = None,
    min_mass: float = 0.0,
    max_leaves: int = 2_000_000,
) -> ChainLaw:
    """The exact law of ``length`` decoded tokens, rounds repeated until there are enough and the last one cut; of a
    sequence under each of ``condition`` (rows, *any), where the models have one.

    A state is the emitted prefix, the carried draft with its law, and the verifier's memory. Every round emits, so the
    states of one length are met only from shorter ones: equal ones merge, and each is enumerated once. Raises as
    ``exact_rows`` does; the limits hold for the states of one length together.
    """
    step = Round(target, drafter, verifier, draft_length)
    starts = torch.arange(1 if condition is None else len(condition))
    wanted = conditionals(target, target.start(len(starts), condition), len(starts), length)
    vocab = wanted[0].shape[-1]
    deep = int(depths(parents(verifier, draft_length)).max()) + 2
    waiting: list[list[_Part]] = [[] for _ in range(length)]
    waiting[0].append((starts, torch.ones(len(starts), dtype=torch.float64), None, None))
    law = torch.zeros(len(starts) * vocab**length, dtype=torch.float64)
    rounds, dropped, states = 0.0, 0.0, 0
    for done in range(length):
        if not waiting[done]:
            continue
        code, mass, carry, memory = _merge(waiting[done])
        rounds, states = rounds + float(mass.sum()), states + len(code)
        given = None if condition is None else condition[code // vocab**done]  # beyond its tokens, a code has its start
        state = _after(step, digits(code, done, vocab), given)
        state = State(state.target, state.drafter, carry, memory, torch.full((len(code),), length - done))
        for leaf in apart(step, state, len(code), min_mass, max_leaves):
            _check_tokens(leaf, vocab, deep)
            weight = mass[leaf.index] * leaf.mass
            dropped += float(mass[leaf.index] @ leaf.dropped)
            for count in range(1, deep + 1):
                mine = torch.nonzero(leaf.length == count).squeeze(1)
                if not len(mine):
                    continue
                take = min(count, length - done)
                prefix = code[leaf.index[mine]] * vocab**take + encode(leaf.tokens[mine, :take], vocab)
                if done + take == length:
                    law.index_put_((prefix,), weight[mine], accumulate=True)
                else:
                    left = (None if part is None else part[mine] for part in (leaf.carry, leaf.memory))
                    waiting[done + take].append((prefix, weight[mine], *left))
    truth = _product(wanted) if condition is not None else _product(wanted)[0]
    return ChainLaw(law.reshape(truth.shape), truth, rounds, dropped, states)


_Part = tuple[Tensor, Tensor, Draft | None, Tensor | None]  # prefixes as numbers, masses, carried drafts, memories


def _merge(parts: list[_Part]) -> _Part:
    """Add up the masses of equal states: equal prefix, and equal carry and memory bit for bit."""
    code, mass = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    drafts = [part[2] for part in parts if part[2] is not None]
    key = code.unsqueeze(-1).double()
    if drafts:
        if len(drafts) != len(parts):
            raise ValueError("a verifier carries a draft in every round or in none")
        value = torch.cat([draft.value for draft in drafts])
        probs = torch.cat([_probs(draft.law) for draft in drafts])
        key = torch.cat([key, value.double(), probs.flatten(1)], -1)
        kept = [draft.noise for draft in drafts if draft.noise is not None]
        noise = kept[0].join(kept[1:], 0) if kept else None
        if noise is not None:
            key = torch.cat([key, noise.key().flatten(1)], -1)
    memories = [part[3] for part in parts if part[3] is not None]
    memory = torch.cat(memories) if memories else None
    if memory is not None:
        if len(memories) != len(parts):
            raise ValueError("a verifier remembers something in every round or in none")
        key = torch.cat([key, memory.flatten(1).double()], -1)
    one, group = distinct(key)
    total = torch.zeros(len(one), dtype=torch.float64).index_add(0, group, mass)
    carry = Draft(value, Categorical(probs), drafts[0].parent, noise)[one] if drafts else None
    return code[one], total, carry, None if memory is None else memory[one]
