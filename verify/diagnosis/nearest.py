"""Which known rule does a wrong law belong to?

Every rule of the catalogue that is not exact, and every planted defect, is a candidate. Its law is computed where the
function's was; a candidate is named only if the two agree everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verify.decode import parents
from verify.diagnosis.rule_law import Stack, decoded_beside, laid_beside, sequence_laws
from verify.diagnosis.suspects import Candidate, Case, agreeing, suspects
from verify.verifier import Verifier

if TYPE_CHECKING:
    from verify.spaces.decoder import DecodedLaw
    from verify.spaces.problem_law import ProblemLaw

EXACT = 1e-12  # laws nearer than this are one, whatever the bias
SAME = 1e-9  # laws nearer than this are one, where the bias is a thousand times larger
MOST_OF = 0.75  # a rule is near if it has the same law on this share of the wrong problems
NEAR = 0.01  # or if it is nearer than this share of the bias
DRAFT_LENGTHS, LONGEST = range(1, 5), 6  # tried where none is heard; and the longest that is
TRIED = 3  # rules that may be the nearest
UNKNOWN = "unlike every known defect"


def named(alike: Sequence[tuple[Candidate, str]], verb: str = "behaves exactly like") -> str:
    """The simplest candidate by its name and reference, and the others that cannot be told apart from it."""
    (first, note), *others = sorted(alike, key=lambda one: one[0].complexity)
    also = f"; not to be told apart here from {', '.join(str(one) for one, _ in others)}" if others else ""
    return f"{verb} {first}{note}, {first.reference}{also}"


def _nearest(away: Sequence[tuple[float, Candidate, Sequence[Case]]], same: float) -> str:
    """That the law is unknown; and which rule is near, if one is: it has the same law on most of the problems that are
    wrong, or everywhere one far nearer than the target's.
    """
    best: tuple[tuple[float, float], str] | None = None
    for _, candidate, cases in sorted(away, key=lambda one: (one[0], one[1].complexity))[:TRIED]:
        biases = torch.cat([case.biases for case in cases])
        distances = torch.cat([case.distances(candidate.rule) for case in cases])
        wrong, alike = biases > same, int(((distances < same) & (biases > same)).sum())
        share, distance, bias = alike / int(wrong.sum()), float(distances.max()), float(biases.max())
        if share >= MOST_OF:
            how = f"which has the same law on {alike} of the {int(wrong.sum())} wrong ones"
        elif distance < NEAR * bias:
            how = f"at most {distance:.2g} away (tv) where the target is up to {bias:.2g} away"
        else:
            continue
        if best is None or (-share, distance) < best[0]:
            best = (-share, distance), f"; nearest is {candidate}, {how}"
    return UNKNOWN + (best[1] if best else "")


def _threshold(bias: float, allowed: float) -> float:
    """How near two laws must be to be one: far nearer than the bias, but no nearer than rounding lets them be."""
    return max(allowed, min(SAME, bias / 1000))


def diagnose(laws: Sequence[ProblemLaw], allowed: float = EXACT) -> str:
    """The planted defect, or the lossy rule of the catalogue, that has these very laws; that none has; and nothing
    where they are the target's.

    ``allowed``: the bias that the function's rounding explains. Rules are compared on all problems, those where the
    function is right included: first on the smallest that is plainly wrong.
    """
    bias = max((law.bias for law in laws), default=0.0)
    same = _threshold(bias, allowed)
    if bias <= same:
        return ""
    sizes: dict[tuple[int, int], list[ProblemLaw]] = {}
    for law in laws:
        sizes.setdefault((law.problem.vocab, law.problem.length), []).append(law)
    stacks = [(Stack(tuple(law.problem for law in some)), some) for some in sizes.values()]
    # Masses of blocks say more than the laws that the target completes them to; they are looked at in the end.
    blocks = {stack: stack.blocks_of(some) for stack, some in stacks}
    cases = [Case(stack.law(found), stack.truth, partial(_law, stack)) for stack, found in blocks.items()]
    cases.sort(key=lambda case: (float(case.biases.max()) < bias / 10, case.found.shape[1]))
    kinds = [(name, kind) for name, kind in suspects() if not any(laid_beside(kind(), length) for _, length in sizes)]
    alike, away = agreeing(cases, kinds, same)
    if not alike:
        return _nearest([(distance, candidate, cases) for distance, candidate in away], same)
    closer = [
        one for one in alike if all(_near(stack.blocks(one.rule), found, same) for stack, found in blocks.items())
    ]
    if closer:
        return named([(one, "") for one in closer])
    return named([(one, "") for one in alike], "emits other blocks, but with exactly the law of")


def _law(stack: Stack, rule: Verifier) -> Tensor:
    return stack.law(stack.blocks(rule))


def _near(some: Sequence[Tensor], others: Sequence[Tensor], same: float) -> bool:
    """Whether all masses are the same."""
    return all(float((one - other).abs().max()) < same for one, other in zip(some, others, strict=True))


def diagnose_decoder(laws: Sequence[DecodedLaw], allowed: float = EXACT, heard: int = 0) -> str:
    """As ``diagnose`` for laws of whole sequences.

    Here drafts of every shape and policy can be laid beside the function: siblings, drafts drawn from another law than
    they are labelled with, and defects that need several rounds to show. ``heard``: how many tokens the decoder was
    heard to draft at once, 0 if that is unknown, and 1 for siblings as well: then several draft lengths are tried, and
    numbers are fitted at the first only.
    """
    bias = max((law.bias for law in laws), default=0.0)
    same = _threshold(bias, allowed)
    if bias <= same:
        return ""
    sizes: dict[tuple[int, int], list[DecodedLaw]] = {}
    for law in sorted(laws, key=lambda law: (law.bias < bias / 10, law.pair.vocab**law.pair.length)):
        sizes.setdefault((law.pair.vocab, law.pair.length), []).append(law)
    groups = list(sizes.values())
    kinds = [(name, kind) for name, kind in suspects() if not kind.claim.exact and not decoded_beside(kind())]
    lengths: dict[Candidate, list[int]] = {}
    away: list[tuple[float, Candidate, Sequence[Case]]] = []
    tried = (heard,) if 1 < heard <= LONGEST else DRAFT_LENGTHS
    for length in tried:
        some = kinds if heard != 1 or length == 1 else [(name, kind) for name, kind in kinds if not _is_chain(kind())]
        cases = [
            _sequences(groups[0], 1, length),
            *(_sequences(group, group[0].pair.length, length) for group in groups),
        ]
        alike, others = agreeing(cases, some, same, fit=length == tried[0])
        for candidate in alike:
            lengths.setdefault(candidate, []).append(length)
        away += [(distance, candidate, cases) for distance, candidate in others]
    if not lengths:
        return _nearest(away, same)
    return named([(one, f" at draft length {_either(some)}") for one, some in lengths.items()])


def _is_chain(rule: Verifier) -> bool:
    return torch.equal(parents(rule, 2), torch.arange(2) - 1)


def _sequences(laws: Sequence[DecodedLaw], tokens: int, draft_length: int) -> Case:
    """The first ``tokens`` of the sequences decoded on pairs of one size, as a case."""
    pairs = [replace(law.pair, length=tokens) for law in laws]
    size = pairs[0].vocab ** tokens
    found, wanted = (
        torch.stack([vector.reshape(size, -1).sum(1) for vector in vectors])
        for vectors in ([law.vector for law in laws], [law.truth for law in laws])
    )
    return Case(found, wanted, lambda rule: sequence_laws(rule, pairs, draft_length))


def _either(numbers: Sequence[int]) -> str:
    """The numbers as a list in words."""
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}" if most else last
