"""The exact law of a decoded sequence, by enumerating every round and merging equal states between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.distinct import distinct
from distributions.model import Model
from verify.decode import Round, State, depths, parents
from verify.exact.leaves import after, apart, check_tokens
from verify.exact.prefixes import conditionals, digits, encode, product, table
from verify.records import Draft
from verify.verifier import Verifier


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
        state = after(step, digits(code, done, vocab), given)
        state = State(state.target, state.drafter, carry, memory, torch.full((len(code),), length - done))
        for leaf in apart(step, state, len(code), min_mass, max_leaves):
            check_tokens(leaf, vocab, deep)
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
    truth = product(wanted) if condition is not None else product(wanted)[0]
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
        probs = torch.cat([table(draft.law) for draft in drafts])
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
