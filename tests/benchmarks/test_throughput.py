"""Verifier throughput: tokens of a large vocabulary.

Eight drafted tokens, tables in float32. What is timed is `verify.speculative`, which is the catalogue's rejection rule,
proved by enumeration. The function of the installed transformers takes one row, and logits: a batch is a loop of rows,
as a user would write it. Both go through the same 64 rows, so many at a call. Reading two rows is taking their sums,
one call each; `log_softmax` is torch's, over all 17 tables of every row, with memory prepared for its result, which it
is seldom given. Of probabilities only the drafted entries are read, until a rejection or the bonus. A call has a fixed
cost, that of some sixty small operations of torch and numpy, each dearer just after two rows have passed through the
cache: it is what counts for one row, and for eight at 32 k still. Compiled whole, a draw at one row of 32 k would still
take twice the time of reading, for its two numbers must come from the tape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from distributions.categorical import Categorical
from distributions.tape import GeneratorTape
from tests.benchmarks.report import Section, Versus
from verify.records import Draft
from verify.residual import log_ratio
from verify.speculative import speculative_sampling
from verify.tables import drawn
from verify.upstream.transformers import speculative_sampling as installed

ROWS, NODES = 64, 8
BATCHES = [1, 8, 64]
NAMES = {32_000: "32 k", 128_256: "128 k"}


@dataclass(frozen=True, eq=False)
class Tables:
    """ids (ROWS, NODES); draft (ROWS, NODES, V) and target (ROWS, NODES + 1, V), as logits and as probabilities."""

    ids: Tensor
    logits: tuple[Tensor, Tensor]
    probs: tuple[Tensor, Tensor]

    def given(self, logits: bool) -> tuple[Tensor, Tensor]:
        return self.logits if logits else self.probs

    @property
    def chance(self) -> Tensor:
        """The probability (ROWS, NODES) that each drafted token is accepted, in float64."""
        draft, target = (Categorical.stored(part) for part in self.probs)
        return log_ratio(self.ids, target[:, :NODES], draft).clamp(max=0).exp()


@pytest.fixture(scope="module", params=NAMES, ids=NAMES.get)
def tables(request: pytest.FixtureRequest) -> Iterator[Tables]:
    seeded = torch.Generator().manual_seed(0)
    target = torch.randn(ROWS, NODES + 1, request.param, generator=seeded).mul_(4)
    draft = torch.randn(ROWS, NODES, request.param, generator=seeded).mul_(0.6).add_(target[:, :NODES])
    probs = draft.softmax(-1), target.softmax(-1)
    ids = torch.stack([torch.multinomial(row, 1, generator=seeded).squeeze(-1) for row in probs[0]])
    yield Tables(ids, (draft, target), probs)


def in_batches(size: int, call: Callable[[slice], Any]) -> list[Any]:
    """The results for all rows, so many at a call."""
    return [call(slice(start, start + size)) for start in range(0, ROWS, size)]


def verified(tables: Tables, batch: int, logits: bool, tape: GeneratorTape) -> tuple[Tensor, Tensor]:
    draft, target = tables.given(logits)

    def call(rows: slice) -> tuple[Tensor, Tensor]:
        return speculative_sampling(tables.ids[rows], draft[rows], target[rows], tape, logits=logits)

    ids, length = zip(*in_batches(batch, call), strict=True)
    return torch.cat(ids), torch.cat(length)


def right(tables: Tables, ids: Tensor, length: Tensor) -> None:
    """Kept drafts as they were, replacements where the target is above the draft, and as many kept as there must be."""
    kept = torch.arange(NODES) < (length - 1).unsqueeze(-1)
    assert torch.equal(ids[:, :NODES][kept], tables.ids[kept])
    last, row = ids.gather(1, (length - 1).unsqueeze(-1)).squeeze(-1), torch.arange(ROWS)
    above = tables.probs[1][row, length - 1, last]
    below = tables.probs[0][row, (length - 1).clamp(max=NODES - 1), last]
    assert bool((above > torch.where(length <= NODES, below, 0)).all())
    # Six standard deviations, which chance passes twice in 10^9: the prefix that is kept, given what was drafted.
    survive = tables.chance.cumprod(-1)
    spread = ((2 * torch.arange(NODES) + 1) * survive).sum(-1) - survive.sum(-1) ** 2
    assert abs(float((length - 1 - survive.sum(-1)).sum())) < 6 * float(spread.sum()) ** 0.5


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("logits", [False, True], ids=["probabilities", "logits"])
def test_against_transformers(tables: Tables, logits: bool, batch: int, versus: Versus, section: Section) -> None:
    draft, target = tables.logits
    function, tape = installed(), GeneratorTape(1)

    def theirs(rows: slice) -> list[int]:
        calls = [
            function(tables.ids[row : row + 1], draft[row : row + 1], NODES, target[row : row + 1])
            for row in range(rows.start, rows.stop)
        ]
        return [tokens.shape[1] for tokens, _ in calls]

    run = versus(lambda: verified(tables, batch, logits, tape), lambda: in_batches(batch, theirs))
    right(tables, *run.result)
    lengths = torch.tensor(run.reference_result).flatten()
    assert bool(((lengths >= 1) & (lengths <= NODES + 1)).all())
    section.row(
        vocabulary=NAMES[target.shape[-1]],
        given="logits" if logits else "probabilities",
        rows_a_call=batch,
        time_over_transformers=run.ratio,
        milliseconds_a_row=run.seconds / ROWS * 1e3,
        transformers_milliseconds_a_row=run.reference_seconds / ROWS * 1e3,
        tokens_per_second=int(run.result[1].sum()) / run.seconds,
    )


@pytest.mark.parametrize("batch", BATCHES)
def test_given_logits_against_log_softmax(tables: Tables, batch: int, versus: Versus, section: Section) -> None:
    tape, memory = GeneratorTape(2), [torch.empty_like(part[:batch]) for part in tables.logits]

    def normalised(rows: slice) -> None:
        for part, out in zip(tables.logits, memory, strict=True):
            torch.log_softmax(part[rows], -1, out=out)

    run = versus(lambda: verified(tables, batch, True, tape), lambda: in_batches(batch, normalised))
    right(tables, *run.result)
    section.row(
        logits_vocabulary=NAMES[tables.probs[0].shape[-1]],
        rows_a_call=batch,
        verification_over_log_softmax=run.ratio,
        log_softmax_milliseconds_a_row=run.reference_seconds / ROWS * 1e3,
    )


@pytest.mark.parametrize("batch", BATCHES)
def test_a_rejection_against_reading_its_rows(tables: Tables, batch: int, versus: Versus, section: Section) -> None:
    draft, target = tables.probs
    laws = Categorical.stored(target), Categorical.stored(draft)
    row, tape = torch.arange(ROWS), GeneratorTape(3)
    node = 5 * row % NODES
    places = list(zip(row.tolist(), node.tolist(), strict=True))

    def read(rows: slice) -> list[Tensor]:
        return [part[place].sum() for place in places[rows] for part in (target, draft)]

    run = versus(
        lambda: in_batches(batch, lambda rows: drawn(*laws, row[rows], node[rows], tape, "residual")),
        lambda: in_batches(batch, read),
        turns=9,
    )
    token = torch.cat(run.result)
    assert bool((target[row, node, token] > draft[row, node, token]).all())
    vocab = target.shape[-1]
    section.row(
        rejections_vocabulary=NAMES[vocab],
        rows_a_call=batch,
        rejection_over_reading=run.ratio,
        microseconds_a_rejection=run.seconds / ROWS * 1e6,
        reading_microseconds=run.reference_seconds / ROWS * 1e6,
        gigabytes_read_per_second=2 * 4 * vocab * ROWS / run.reference_seconds / 1e9,
    )


def test_acceptance_does_not_see_the_vocabulary(tables: Tables, versus: Versus, section: Section) -> None:
    """The coins of all nodes on these tables, and on their first 256 entries: as many numbers are read."""
    draft, target = (Categorical.stored(part) for part in tables.probs)
    few = [Categorical.stored(part[..., :256].contiguous()) for part in tables.probs]
    block = Draft.chain(tables.ids, draft)

    def coins(value: Tensor, above: Categorical, below: Categorical) -> Tensor:
        for _ in range(200):
            chance = log_ratio(value, above[:, :NODES], below).clamp(max=0).exp()
        return GeneratorTape(4).coin("accept", chance)

    run = versus(lambda: coins(block.value, target, draft), lambda: coins(tables.ids % 256, few[1], few[0]))
    # Sixty-four rows of eight coins, six standard deviations: chance passes that twice in 10^9.
    chance = tables.chance
    assert abs(float((run.result.double() - chance).sum())) < 6 * float((chance * (1 - chance)).sum()) ** 0.5
    section.say(
        f"The coins of {ROWS} x {NODES} drafted tokens at V = {NAMES[draft.size]} take {run.ratio:.2f} of what "
        f"they take at V = 256: {run.seconds / 200 / ROWS * 1e6:.2f} microseconds a row."
    )
