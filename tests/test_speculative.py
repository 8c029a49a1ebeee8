"""Wide tables: what the rejection rule reads of them, and that its law on them is the one that is proved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.law import Law
from distributions.logits import Logits
from distributions.tape import GeneratorTape, Tape
from verify import tables
from verify.exact import exact_rows
from verify.problems import pool
from verify.records import Claim, Draft, Outcome
from verify.residual import log_ratio
from verify.spaces.discrete import law_of
from verify.speculative import speculative_sampling
from verify.verifiers.rejection import Rejection
from verify.vocabulary.identity import Identity, check_identity
from verify.vocabulary.production import logits, table

VOCAB = 32_000


@dataclass(frozen=True)
class AsStored:
    """The rule on the same laws as an engine would hold them."""

    logits: bool
    dtype: torch.dtype
    claim: ClassVar[Claim] = Rejection.claim

    def law(self, law: Categorical) -> Law:
        probs = law.probs.to(self.dtype)
        return Logits(probs.log() + 3) if self.logits else Categorical.stored(probs)

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        assert isinstance(draft.law, Categorical) and isinstance(target, Categorical)
        return Rejection().verify(Draft.chain(draft.value, self.law(draft.law)), self.law(target), tape)


def sparse(seed: int) -> Markov:
    """Tables in which the smallest of five entries is 0, so that some blocks, and some residuals, have no mass."""
    rows = Markov.random(5, 1, seed).table
    return Markov(rows.masked_fill(rows <= rows.amin(-1, keepdim=True), 0), 1)


@pytest.mark.parametrize("block", [2, 5, 256])
@pytest.mark.parametrize("logits", [False, True], ids=["probabilities", "logits"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_the_law_on_wide_tables_enumerated(
    block: int, logits: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "WIDE", 1)
    monkeypatch.setattr(tables, "BLOCK", block)
    contexts = torch.arange(5).unsqueeze(-1)
    for target, drafter in ((sparse(0), sparse(1)), (Markov.random(5, 1, 0), sparse(1)), (sparse(0), sparse(0))):
        law = exact_rows(AsStored(logits, dtype), target, drafter, contexts, 2)
        # Float32 tables sum to 1 up to 5 * 2**-24, and are a law of their own that is this far from the one stored.
        assert float(law.tv.max()) < (1e-12 if dtype is torch.float64 else 1e-6)
        assert float((law.acceptance - law.overlap).abs().max()) < (1e-12 if dtype is torch.float64 else 1e-6)
        assert law.prefix_closed and float(law.dropped.max()) == 0


def test_a_block_drawn_by_its_size_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The enumeration above would not pass a rule that draws its block evenly."""

    def even(target, draft, row, node, tape, site):  # type: ignore[no-untyped-def]
        class Bent:
            def __getitem__(self, rows: Tensor) -> Bent:
                return self

            def categorical(self, where: str, probs: Tensor) -> Tensor:
                return tape[row].categorical(where, (probs > 0).double() if where.endswith(".block") else probs)

        return honest(target, draft, row, node, Bent(), site)

    honest = tables.drawn
    monkeypatch.setattr(tables, "WIDE", 1)
    monkeypatch.setattr(tables, "BLOCK", 2)
    monkeypatch.setattr("verify.residual.drawn", even)
    law = exact_rows(AsStored(False, torch.float64), sparse(0), sparse(1), torch.arange(5).unsqueeze(-1), 2)
    assert float(law.tv.max()) > 1e-2


@pytest.mark.parametrize("logits", [False, True], ids=["probabilities", "logits"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_judged_as_a_strangers_function(logits: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "WIDE", 1)
    monkeypatch.setattr(tables, "BLOCK", 2)

    class Global(GeneratorTape):
        """The draws of a stranger, which are answered."""

        def coin(self, site: str, prob: Tensor) -> Tensor:
            return torch.rand(prob.shape, dtype=prob.dtype) < prob

        def categorical(self, site: str, probs: Tensor) -> Tensor:
            return torch.multinomial(probs, 1).squeeze(-1)

    def stranger(drafted: Tensor, draft: Tensor, target: Tensor) -> list[int]:
        given = (part.to(dtype).log() if logits else part.to(dtype) for part in (draft[None], target[None]))
        ids, length = speculative_sampling(drafted[None], *given, Global(), logits=logits)
        return list(ids[0, : int(length)].tolist())

    # The tables of the problems are float64; cast to float32 they are laws up to 2**-24 a token.
    for problem in pool(3, 2)[:2]:
        assert law_of(stranger, problem).bias < (1e-12 if dtype is torch.float64 else 1e-6)


class Every(GeneratorTape):
    """Answers every draw of a block with the number of its row, and keeps the weights."""

    def categorical(self, site: str, probs: Tensor) -> Tensor:
        self.__dict__[site.rpartition(".")[2]] = probs
        return torch.arange(len(probs)) if site.endswith(".block") else probs.argmax(-1)


def replacement(target: Tensor, draft: Tensor | None, as_logits: bool, vocab: int) -> Tensor:
    """The law (V,) with which ``drawn`` draws, from the weights that it gives the tape, block by block."""
    make = Logits if as_logits else Categorical.stored
    count, tape = -(-vocab // tables.BLOCK), Every()
    zeros = torch.zeros(count, dtype=torch.long)
    laws = [None if part is None else make(part[None, None]) for part in (target, draft)]
    assert laws[0] is not None
    tables.drawn(laws[0], laws[1], zeros, zeros, tape, "residual")
    sums, inside = (tape.__dict__[name].double() for name in ("block", "residual"))
    assert torch.equal(sums, sums[:1].expand(count, -1))
    mass = inside.sum(-1, keepdim=True)
    law: Tensor = (sums[0].unsqueeze(-1) / sums[0].sum() * inside / torch.where(mass > 0, mass, 1)).flatten()
    assert not bool(law[vocab:].any())
    return law[:vocab]


@pytest.mark.parametrize("vocab", [VOCAB, 4_100])
@pytest.mark.parametrize("as_logits", [False, True], ids=["probabilities", "logits"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_the_law_at_production_size_by_the_identity(dtype: torch.dtype, as_logits: bool, vocab: int) -> None:
    """O(V): the acceptance of every token and the replacement law, from the code itself, fit the target."""
    scores = [part[0].to(dtype) for part in logits(1, vocab)]
    draft, target = (part.softmax(-1) for part in scores)
    given = scores if as_logits else [draft, target]
    make = Logits if as_logits else Categorical.stored
    accept = log_ratio(torch.arange(vocab), make(given[1]), make(given[0])).clamp(max=0).exp()

    def judged(weights: Tensor) -> Identity:
        return check_identity(accept, weights, draft, target, arithmetic=(dtype, dtype))

    right = judged(replacement(given[1], given[0], as_logits, vocab))
    assert right.lossless and float(right.bias) < (1e-12 if dtype is torch.float64 else 1e-6)
    wrong = judged(replacement(given[1], None, as_logits, vocab))
    assert wrong.component() == "replacement"


def block(rows: int, nodes: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, and float32 tables of a drafter that is never above the target at them, so that all are accepted."""
    draft, target = (table(part, torch.float32) for part in logits(rows * (nodes + 1), VOCAB, seed=seed))
    draft, target = draft.view(rows, nodes + 1, -1)[:, :-1], target.view(rows, nodes + 1, -1)
    return (target[:, :-1] - draft).argmax(-1), draft, target


def test_what_is_read_of_probabilities() -> None:
    """Everything else is NaN, which any sum would spread: one entry a row of drafted nodes, and the bonus's row."""
    ids, draft, target = block(3, 4)
    index = ids.unsqueeze(-1)
    bare_draft, bare = torch.full_like(draft, torch.nan), torch.full_like(target, torch.nan)
    bare_draft.scatter_(-1, index, draft.gather(-1, index))
    bare[:, :-1].scatter_(-1, index, target[:, :-1].gather(-1, index))
    bare[:, -1] = target[:, -1]
    found, length = speculative_sampling(ids, bare_draft, bare, GeneratorTape(1))
    assert length.tolist() == [5, 5, 5] and torch.equal(found[:, :-1], ids)
    assert bool((target[:, -1].gather(-1, found[:, -1:]) > 0).all())

    # A rejection at node 2 of row 1: the target has no mass at what was drafted there. Its two rows, and no other.
    target[1, 2, ids[1, 2]] = 0
    bare[1, 2], bare_draft[1, 2], bare[1, 4] = target[1, 2], draft[1, 2], torch.nan
    found, length = speculative_sampling(ids, bare_draft, bare, GeneratorTape(1))
    assert length.tolist() == [5, 3, 5]
    token = found[1, 2]
    assert target[1, 2, token] > draft[1, 2, token]
    bare_draft[1, 2, 0] = torch.nan  # and the poison works
    with pytest.raises(ValueError, match="non-negative and finite"):
        speculative_sampling(ids, bare_draft, bare, GeneratorTape(1))


def test_a_residual_without_mass_is_the_target() -> None:
    """Two equal rows and a coin that fell wrong: the target's own law, never an error or a token without mass."""
    row = torch.zeros(VOCAB)
    row[[5, 31_999]] = 0.5
    law = Categorical.stored(row[None, None])
    zeros = torch.zeros(40, dtype=torch.long)
    assert set(tables.drawn(law, law, zeros, zeros, GeneratorTape(0), "residual").tolist()) == {5, 31_999}


@pytest.mark.parametrize("offset", [0.0, -200.0, 500.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_logits_are_a_softmax(offset: float, dtype: torch.dtype) -> None:
    scores = (logits(6, 5_000)[0] + offset).to(dtype).reshape(2, 3, -1)
    scores[0, 1, 7:] = -torch.inf
    law, wanted = Logits(scores), scores.double().log_softmax(-1)
    # The difference of a score and the total is rounded, and both are of order 20.
    close = {"rtol": 0.0, "atol": 1e-12 if dtype is torch.float64 else 4e-6}
    assert law.batch_shape == (2, 3) and law.event_shape == ()
    value = wanted.argsort(-1)[..., 2_500:2_501].expand(2, 3, 1)
    assert torch.allclose(law[..., None].log_prob(value), wanted.gather(-1, value), **close)
    assert torch.allclose(law.probs.double(), wanted.exp(), **close)
    assert torch.allclose(law.probs.double().sum(-1), torch.ones(2, 3, dtype=torch.float64), **close)
    for part in (law[1, 2].probs, law[1].probs[2], law[:, 2].probs[1]):
        assert torch.allclose(part, law.probs[1, 2], rtol=1e-6, atol=0)  # a vectorised exp may round otherwise
    assert torch.allclose(law.overlap(Categorical(wanted.exp())), torch.ones(()).double(), **close)
    assert bool((law.sample(GeneratorTape(0), "x")[0, 1] < 7).all())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_scores_that_are_no_law(bad: float) -> None:
    with pytest.raises(ValueError, match="finite or -inf"):
        Logits(torch.tensor([[0.0, bad], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="finite or -inf"):
        Logits(torch.full((1, 3), -torch.inf))


def test_shapes_that_do_not_fit() -> None:
    ids, draft, target = block(1, 2)
    with pytest.raises(ValueError, match="do not fit"):
        speculative_sampling(ids, draft, target[:, :-1], GeneratorTape(0))
