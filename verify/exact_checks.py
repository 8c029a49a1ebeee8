"""Checks that decide by enumeration: each is a number that is zero, to rounding, for a lossless rule.

Every public function that takes an Evidence and returns a float is one: ``exact_checks()`` finds it by its signature.
They differ in what they look at, and so in what they are blind to: a defect is caught by several of them or by one.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from distributions.enumeration import RowsDependent
from verify.exact import ChainLaw, RoundLaw, exact_batch, exact_chain, exact_rows
from verify.records import Claim
from verify.references import references
from verify.scenarios import Scenario, target_misses_tokens
from verify.verifier import Verifier

TOLERANCE = 1e-12
"""What a check may find in a lossless rule: rounding leaves some 1e-16 a node."""
SEQUENCE = 3
"""How many tokens are decoded for the check of sequences."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The exact law of one round in some contexts, that of a decoded sequence where there is one, and whether the rows
    of the batch were independent, so that they could be enumerated apart.
    """

    rows: RoundLaw
    chain: ChainLaw | None
    apart: bool


Check = Callable[[Evidence], float]


def law(evidence: Evidence) -> float:
    """Total variation of one round, continued by the target, from the target's law (lemma L5)."""
    return float(evidence.rows.tv.max())


def first_token(evidence: Evidence) -> float:
    """Total variation of the first emitted token: all that a test of single tokens can see."""
    return float(evidence.rows.departure[0].max())


def conditional(evidence: Evidence) -> float:
    """The largest departure of a later token given what the round emitted before it: blind to the first token."""
    return max(float(part.max()) for part in evidence.rows.departure[1:])


def support(evidence: Evidence) -> float:
    """The mass given to blocks that the target never emits."""
    rows = evidence.rows
    return float((rows.law * (rows.truth == 0)).sum(-1).max())


def excess_acceptance(evidence: Evidence) -> float:
    """By how much the first token is accepted more often than any lossless rule can (lemma L2): outputs not needed."""
    return float((evidence.rows.acceptance - evidence.rows.overlap).max())


def record(evidence: Evidence) -> float:
    """How far the mean of ``kept`` is from what ``log_accept`` says; 1 where a node is kept below a refused one."""
    rows = evidence.rows
    return float((rows.kept - rows.predicted).abs().max()) if rows.prefix_closed else 1.0


def sequence(evidence: Evidence) -> float:
    """Total variation of a decoded sequence, which sees what passes from one round to the next."""
    return 0.0 if evidence.chain is None else evidence.chain.tv


def independence(evidence: Evidence) -> float:
    """1 where what a row does depends on the other rows of its batch."""
    return 0.0 if evidence.apart else 1.0


def exact_checks() -> dict[str, Check]:
    """Every check of this module by name, in the order of the file."""
    found: dict[str, Check] = {}
    for name, item in inspect.getmembers(sys.modules[__name__], inspect.isfunction):
        if inspect.get_annotations(item, eval_str=True) == {"evidence": Evidence, "return": float}:
            found[name] = item
    return dict(sorted(found.items(), key=lambda pair: inspect.getsourcelines(pair[1])[1]))


def applies(check: str, claim: Claim) -> bool:
    """Whether a rule that claims to be exact is held to a check: one that is so across rounds may bend one round."""
    return not (claim.exact and claim.level == "sequence" and check in ("law", "first_token", "conditional"))


def gather(verifier: Verifier, scenario: Scenario, contexts: Tensor, length: int | None = None) -> Evidence:
    """Enumerate a round after each of ``contexts``, and a sequence of ``length`` tokens where it is given.

    Rows that depend on one another are enumerated as a batch of the first and the last context. Raises as
    ``exact_rows`` and ``exact_batch`` do.
    """
    pair, nodes = (scenario.target, scenario.drafter), scenario.draft_length
    try:
        rows = exact_rows(verifier, *pair, contexts, nodes)
    except RowsDependent:
        return Evidence(exact_batch(verifier, *pair, contexts[[0, -1]], nodes), None, False)
    chain = None if length is None else exact_chain(*pair, verifier, nodes, length)
    return Evidence(rows, chain, True)


def panel(verifier: Verifier, draft_length: int = 2) -> dict[str, Evidence]:
    """The evidence on pairs A and B, and on pair C of 4 tokens, one of which the target excludes in every context.

    A rule that works on the whole batch is run on C alone, where its batch can be enumerated.
    """
    small = replace(target_misses_tokens(4), draft_length=draft_length)
    found = {}
    for letter, pair in references().items():
        if verifier.claim.level != "batch":
            found[letter] = gather(verifier, replace(pair, draft_length=draft_length), pair.contexts[[0, -1]])
    return {**found, "C": gather(verifier, small, small.contexts, SEQUENCE)}


def findings(evidence: dict[str, Evidence]) -> dict[str, float]:
    """The largest value of every check over some evidence."""
    return {name: max(check(item) for item in evidence.values()) for name, check in exact_checks().items()}


def catches(found: dict[str, float]) -> tuple[str, ...]:
    """The names of the checks whose finding is no rounding."""
    return tuple(name for name, value in found.items() if value > TOLERANCE)
