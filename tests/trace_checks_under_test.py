"""What the tests of checks of traces share: the checks, rounds on Gaussians and on tokens, and who rejects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from distributions.gaussian import Gaussian
from distributions.tape import GeneratorTape
from verify.checks import Check, Tally
from verify.checks.accepted_length import AcceptedLength
from verify.checks.branches import Branches
from verify.checks.coin import Coin
from verify.checks.dependence import RowDependence
from verify.checks.excess_acceptance import ExcessAcceptance
from verify.checks.independence import Independence
from verify.checks.martingale import Martingale
from verify.checks.proposal import Proposal
from verify.checks.residual_law import ResidualLaw
from verify.checks.violations import Violations
from verify.records import Draft, Finding
from verify.references import references
from verify.statistics.trace import Trace, Traced
from verify.verifier import Verifier

torch.set_num_threads(1)
TOKEN: tuple[Check, ...] = (
    Violations(), Coin(), AcceptedLength(), ResidualLaw(), Proposal(), Independence(), ExcessAcceptance(),
    RowDependence(), Branches(), Martingale(),
)  # fmt: skip
"""For rules that keep each node with probability min(1, target / draft)."""
RECORD: tuple[Check, ...] = (
    Violations(False), Coin(False), AcceptedLength(False), ExcessAcceptance(), RowDependence(), Branches(),
    Martingale(),
)  # fmt: skip
"""For any lossless rule that says what its coins were."""
LEVEL = 1e-6


def name_of(check: Check) -> str:
    return type(check).__name__ + ("" if getattr(check, "token_rule", True) else " of the record")


def on_the_line(rule: Verifier, rows: int, seed: int, delta: float = 0.5, nodes: int = 1, dim: int = 1) -> Trace:
    """Rounds on q = N(0, I) and p = N(delta e, I): the pair of which the numbers in the tests are."""
    one = torch.ones(dim, dtype=torch.float64)
    shift = torch.zeros_like(one).index_fill(0, torch.tensor([0]), delta)
    tape, index = GeneratorTape(seed), torch.zeros(rows, nodes + 1, dtype=torch.long)
    draft, target = Gaussian(0 * one, one)[None][index[:, :nodes]], Gaussian(shift, one)[None][index]
    drafted = Draft.chain(draft.sample(tape, "draft"), draft)
    trace = Trace.of(drafted, target, rule.verify(drafted, target, tape))
    return replace(trace, draft=draft[:1], target=target[:1])  # the rows share their laws


def rounds(rule: Verifier, rows: int, letter: str = "A", nodes: int = 2, shards: int = 2) -> list[Trace]:
    """The first rounds of sequences, and the second ones."""
    pair = references()[letter]
    source = Traced(rule, pair.target, pair.drafter, nodes, rows, shards)
    return [source(shard)[0] for shard in range(shards)]


def found(checks: Sequence[Check], traces: Sequence[Trace], alpha: float) -> dict[str, Finding]:
    """What each check says of all traces together, shard by shard."""
    answers = {}
    for check in checks:
        tallies: list[Tally] = [check.statistic(trace, None, GeneratorTape(10**6)) for trace in traces]
        total = tallies[0]
        for tally in tallies[1:]:
            total = total + tally
        answers[name_of(check)] = check.judge(total, alpha)
    return answers


def seen(checks: Sequence[Check], *traces: Trace, level: float = LEVEL) -> set[str]:
    return {name for name, item in found(checks, traces, level / len(checks)).items() if item.rejects}
