"""The exact law of a rule of the catalogue, found where a function under test was judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.enumeration import EnumerationTape, RowsDependent, enumerate_tape
from verify.decode import parents
from verify.exact import digits, encode, exact_chain
from verify.jacobi import Jacobi
from verify.problems import Problem
from verify.records import Draft, Outcome
from verify.spaces.decoder_pairs import Pair, TableModel
from verify.spaces.problem_law import ProblemLaw, Tokens
from verify.verifier import Verifier


def decoded_beside(rule: Verifier) -> str:
    """Why the sequences of a rule cannot be laid beside those of a decoder; empty if they can."""
    if rule.claim.laws not in ("any", "categorical"):
        return f"it is for {rule.claim.laws} laws"
    if rule.claim.level == "batch":
        return "one row does not show it"
    return ""


def laid_beside(rule: Verifier, length: int) -> str:
    """Why a rule cannot be laid beside a function that verifies one drafted chain; empty if it can.

    A rule that is exact across rounds can: its one round, which is not, is what the function may have taken from it.
    """
    if reason := decoded_beside(rule):
        return reason
    if rule.claim.level == "sequence" and not rule.claim.exact:
        return "one round does not show it"
    if hasattr(rule, "drafts"):
        return "its drafts are not drawn from the drafter's law"
    if not torch.equal(parents(rule, length), torch.arange(length) - 1):
        return "its drafts are no chain"
    if isinstance(rule, Jacobi):
        return "it carries its drafts from round to round"
    return ""


@dataclass(frozen=True, eq=False)
class Stack:
    """Problems of one size, whose drafted blocks are enumerated in one batch."""

    problems: tuple[Problem, ...]

    @cached_property
    def _blocks(self) -> list[tuple[int, Tokens, float]]:
        """Every drafted block: its problem, the block, and its probability."""
        return [
            (place, block, chance) for place, problem in enumerate(self.problems) for block, chance in problem.drafts()
        ]

    @cached_property
    def _owner(self) -> Tensor:
        return torch.tensor([place for place, _, _ in self._blocks])

    @cached_property
    def _drafts(self) -> tuple[Draft, Categorical, Tensor]:
        rows = [self.problems[place].rows(block) for place, block, _ in self._blocks]
        draft, target = (torch.stack(part) for part in zip(*rows, strict=True))
        tokens = torch.tensor([block for _, block, _ in self._blocks])
        chances = torch.tensor([chance for _, _, chance in self._blocks], dtype=torch.float64)
        return Draft.chain(tokens, Categorical(draft)), Categorical(target), chances

    @property
    def vocab(self) -> int:
        return self.problems[0].vocab

    @cached_property
    def truth(self) -> Tensor:
        """The targets' laws (P, V**(gamma+1))."""
        return torch.stack([problem.truth for problem in self.problems])

    def blocks(self, rule: Verifier) -> list[Tensor]:
        """For each number L of tokens, the probability (B, V**L) of every drafted block and those tokens for it.

        Raises NotEnumerable at a continuous draw, RowsDependent where rows depend on one another, ValueError for a rule
        that reads no chain.
        """
        draft, target, chances = self._drafts

        def run(index: Tensor, tape: EnumerationTape) -> Outcome:
            return rule.verify(draft[index], target[index], tape)

        found = self._empty()
        for index, mass, _, outcome in enumerate_tape(run, len(chances)):
            for length, masses in enumerate(found, start=1):
                mine = outcome.length == length
                code = encode(outcome.value[mine, :length], self.vocab)
                masses.index_put_((index[mine], code), mass[mine], accumulate=True)
        if float((torch.cat(found, 1).sum(1) - 1).abs().max()) > 1e-9:
            raise RowsDependent(f"{type(rule).__name__} treats a batch as one, and its rows are separate drafts here")
        return [masses * chances.unsqueeze(-1) for masses in found]

    def blocks_of(self, laws: Sequence[ProblemLaw]) -> list[Tensor]:
        """As ``blocks``, from the laws that a function was found to have on these problems."""
        found = self._empty()
        for row, (place, block, _) in enumerate(self._blocks):
            for tokens, mass in laws[place].by_block.get(block, {}).items():
                found[len(tokens) - 1][row, self.problems[place].index(tokens)] = mass
        return found

    def _empty(self) -> list[Tensor]:
        lengths = range(1, self.problems[0].length + 2)
        return [torch.zeros(len(self._blocks), self.vocab**length, dtype=torch.float64) for length in lengths]

    def law(self, blocks: Iterable[Tensor]) -> Tensor:
        """The laws (P, V**(gamma+1)) of gamma + 1 tokens: what was not emitted comes from the target (lemma L5)."""
        law = torch.zeros(len(self.problems), 1, dtype=torch.float64)
        for depth, masses in enumerate(blocks):
            table = torch.stack([problem.target[depth] for problem in self.problems])
            law = (law.unsqueeze(-1) * table).flatten(1).index_add(0, self._owner, masses)
        return law


def law_of_verifier(rule: Verifier, problem: Problem) -> Tensor:
    """The exact law (V**(gamma+1),) of a catalogue verifier on a problem. Raises as ``Stack.blocks``."""
    stack = Stack((problem,))
    return stack.law(stack.blocks(rule))[0]


def joint_law(rule: Verifier, problem: Problem) -> ProblemLaw:
    """As ``law_of_verifier``, for drafted and emitted blocks together."""
    joint: dict[tuple[Tokens, Tokens], float] = {}
    drafted = [block for block, _ in problem.drafts()]
    for length, masses in enumerate(Stack((problem,)).blocks(rule), start=1):
        row, code = masses.nonzero(as_tuple=True)
        emitted = digits(code, length, problem.vocab).tolist()
        for place, tokens, mass in zip(row.tolist(), emitted, masses[row, code].tolist(), strict=True):
            joint[drafted[place], tuple(tokens)] = mass
    return ProblemLaw(problem, joint)


def entering(entry: str, vocab: int) -> Markov:
    """A drafter whose draft is a window of columns that have all just entered; what repeats begins with token 0."""
    each = torch.eye(vocab) if entry == "repeat" else torch.ones(vocab, vocab)
    return Markov(torch.cat([each, each[:1]]), 1)


def sequence_laws(rule: Verifier, pairs: Sequence[Pair], draft_length: int, max_leaves: int = 100_000) -> Tensor:
    """The exact laws (P, V**length) of the sequences that a catalogue verifier decodes on pairs of one size, drafts of
    its own shape and policy included. Jacobi decoding has no use for the drafter: its first window enters as later
    columns do. Raises as ``verify.exact.exact_chain``.
    """
    target, drafter = (
        TableModel(tuple(tables)) for tables in zip(*((pair.target, pair.drafter) for pair in pairs), strict=True)
    )
    every, length = torch.arange(len(pairs)), pairs[0].length
    first = entering(rule.entry, pairs[0].target.vocab) if isinstance(rule, Jacobi) else drafter
    return exact_chain(target, first, rule, draft_length, length, condition=every, max_leaves=max_leaves).law
