"""Rules of the catalogue where functions on Gaussian laws are judged: as rows of a pair, and as such functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from distributions.law import Law, from_torch
from distributions.tape import GeneratorTape, Tape
from verify.decode import parents
from verify.records import Claim, Draft, Outcome
from verify.spaces.gaussian_pairs import Pair
from verify.spaces.gaussian_rows import Rows
from verify.verifier import Verifier, catalog


def continuous(claim: Claim) -> bool:
    """Whether a claim speaks of Gaussian laws, and of no vocabulary."""
    return claim.laws == "gaussian"


def verified(verifier: Verifier, draft: Law, target: Law, value: Tensor, tape: Tape) -> Outcome:
    """One round on drafts ``value`` (rows, N, d), all of them from ``draft`` and held against ``target``, batch ()."""
    rows, nodes = value.shape[:2]
    index = torch.zeros(rows, nodes + 1, dtype=torch.long)
    drafted = Draft(value, draft[None][index[:, :nodes]], parents(verifier, nodes))
    return verifier.verify(drafted, target[None][index], tape)


def rows_of(verifier: Verifier, pair: Pair, sizes: Sequence[int], seed: int, nodes: int = 1) -> Rows:
    """What a rule makes of a pair, in calls of the given sizes: the first token. Of siblings, the first is the draft,
    which no lossless rule emits more often than the overlap either.
    """
    tape, parts = GeneratorTape(seed), []
    for number, size in enumerate(sizes):
        drafted = pair.draft[None][torch.zeros(size, nodes, dtype=torch.long)].sample(tape, "draft")
        emitted = verified(verifier, pair.draft, pair.target, drafted, tape).value[:, 0]
        parts.append((drafted[:, 0], emitted, torch.full((size,), number), torch.arange(size)))
    return Rows(pair, *(torch.cat(columns) for columns in zip(*parts, strict=True)))


@dataclass(eq=False)
class Function:
    """A rule for chains as a function that ``check_verifier(space="gaussian")`` takes, with a generator of its own."""

    rule: Verifier
    seed: int = 0
    _tape: GeneratorTape = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._tape = GeneratorTape(self.seed)

    @property
    def __name__(self) -> str:
        return type(self.rule).__name__

    def __call__(self, draft_value: Tensor, draft: Distribution, target: Distribution) -> Tensor:
        laws = from_torch(draft), from_torch(target)
        return verified(self.rule, *laws, draft_value.double().unsqueeze(1), self._tape).value[:, 0]


def single(verifier: Verifier) -> bool:
    """Whether a rule takes one draft a token, as a function does."""
    return bool((parents(verifier, 2) == torch.arange(2) - 1).all())


def suspected() -> Iterator[tuple[str, type[Any]]]:
    """Every rule of the catalogue, planted or not, that is lossy on Gaussian laws by its own claim, for one draft."""
    for folder in ("saboteurs", "verifiers"):
        for name, kind in catalog(folder).items():
            claim = kind.claim
            if not claim.exact and claim.laws in ("any", "gaussian") and claim.level == "round" and single(kind()):
                yield name, kind
