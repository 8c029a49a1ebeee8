"""A Hugging Face causal language model as a ``Model``: its laws, its cache, and decoding with it, exactly."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from distributions.enumeration import enumerate_tape
from distributions.huggingface import LanguageModel, Text, untrained
from distributions.model import Model
from distributions.processing import Processed, Processing
from distributions.tape import GeneratorTape, Tape
from verify.decode import decode
from verify.exact import encode, exact_chain
from verify.verifier import Verifier
from verify.verifiers.block import Block
from verify.verifiers.rejection import Rejection
from verify.verifiers.scd import Scd
from verify.verifiers.sjd import Sjd

transformers = pytest.importorskip("transformers", reason="the adapter is for models of transformers")
torch.set_num_threads(1)
ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-12}


def llama(seed: int, vocab: int = 3, layers: int = 1, dtype: torch.dtype = torch.float32, **more: Any) -> LanguageModel:
    """A few hundred parameters, grouped queries among them, so peaked that its laws differ by context."""
    config = transformers.LlamaConfig(
        vocab_size=vocab, hidden_size=8, intermediate_size=8, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=0, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    config.update(more)
    return LanguageModel(untrained(transformers.LlamaForCausalLM(config), GeneratorTape(seed)).to(dtype))


def whole(model: LanguageModel, ids: Tensor) -> Tensor:
    """The law (L, V) after every prefix of ``ids`` (L,): the model's own forward pass, without a cache or a mask."""
    with torch.no_grad():
        return model.network(input_ids=ids[None], use_cache=False).logits[0].double().softmax(-1)


def tokens(seed: int, *shape: int, vocab: int = 5) -> Tensor:
    return (GeneratorTape(seed).uniform("tokens", shape) * vocab).long()


@pytest.mark.parametrize("dtype", ROUNDING)
def test_laws_are_those_of_the_whole_pass(dtype: torch.dtype) -> None:
    """Rows that advance unevenly, over three rounds, keep what a pass over the whole prefix says of each."""
    model = llama(3, vocab=5, layers=2, dtype=dtype)
    prompt, read = tokens(1, 4, 3), [row for row in tokens(1, 4, 3)]
    state = model.start(4, prompt)
    for turn, lengths in enumerate(([1, 4, 2, 3], [3, 1, 4, 2], [4, 4, 1, 1])):
        draft, length = tokens(10 + turn, 4, 4), torch.tensor(lengths)
        law = model.law(state, draft).probs
        for row in range(4):
            wanted = whole(model, torch.cat((read[row], draft[row])))[len(read[row]) - 1 :]
            assert (law[row] - wanted).abs().max() < ROUNDING[dtype]
        state = model.extend(state, draft, length)
        read = [torch.cat((row, draft[n, : lengths[n]])) for n, row in enumerate(read)]
    assert state.count.tolist() == [len(row) - 1 for row in read]
    for row in range(4):
        assert (model.law(state).probs[row, 0] - whole(model, read[row])[-1]).abs().max() < ROUNDING[dtype]
    assert (model.law(state).probs[0, 0] - model.law(state).probs[1, 0]).abs().max() > 1e-3  # the context matters


def test_what_was_computed_of_a_draft_changes_nothing() -> None:
    """After the evaluation of a draft, extending by part of it, by another, and after forgetting it: the same laws."""
    model = llama(3, vocab=5, dtype=torch.float64)
    state, draft = model.start(3, [1, 2]), tokens(2, 3, 3)
    model.law(state, draft)
    other = draft.clone()
    other[:, 1] = (other[:, 1] + 1) % 5  # as a replacement would: the second token is not the drafted one
    for value, length in ((draft, [1, 2, 3]), (other, [2, 2, 2]), (other, [1, 2, 3])):
        kept = model.extend(state, value, torch.tensor(length))
        anew = model.extend(replace(state, seen=[]), value, torch.tensor(length))
        assert (model.law(kept).probs - model.law(anew).probs).abs().max() < 1e-14


def test_rejection_keeps_the_old_state() -> None:
    model = llama(3, vocab=5, dtype=torch.float64)
    state, draft = model.start(2, [0, 1]), tokens(4, 2, 3)
    before, parts = model.law(state).probs, [part.clone() for part in state.parts]
    model.law(state, draft)
    model.extend(state, draft, torch.tensor([3, 3]))
    assert all(torch.equal(*pair) for pair in zip(parts, state.parts, strict=True))
    assert torch.equal(model.law(state).probs, before)
    assert model.extend(state, draft, torch.tensor([0, 0])) is state


def test_a_tree_is_its_branches() -> None:
    model = llama(3, vocab=5, dtype=torch.float64)
    state, draft = model.start(2, [3, 1, 4]), tokens(5, 2, 5)
    parent = torch.tensor([-1, -1, 0, 1, 2])
    law = model.law(state, draft, parent).probs
    for path in ([0, 2, 4], [1, 3]):
        chain = model.law(state, draft[:, path]).probs
        assert (law[:, [0, *(node + 1 for node in path)]] - chain).abs().max() < 1e-14


def test_selected_rows_and_prompts_of_unequal_lengths() -> None:
    model = llama(3, vocab=5, dtype=torch.float64)
    prompts = [torch.tensor([1, 2, 3, 4]), torch.tensor([2]), torch.tensor([3, 3])]
    first, rest = torch.tensor([[1], [2], [3]]), torch.tensor([[2, 3, 4], [0, 0, 0], [3, 0, 0]])
    state = model.extend(model.start(3, first), rest, torch.tensor([3, 0, 1]))
    chosen = model.select(state, torch.tensor([2, 0, 0]))
    for row, prompt in enumerate((prompts[2], prompts[0], prompts[0])):
        assert (model.law(chosen).probs[row, 0] - whole(model, prompt)[-1]).abs().max() < 1e-12


def enumerated(target: Model[Any], drafter: Model[Any], verifier: Verifier, draft_length: int, length: int) -> Tensor:
    """The law (3**length,) of what ``decode`` returns, every draw of it answered in every way."""

    def run(index: Tensor, tape: Tape) -> Tensor:
        return decode(target, drafter, verifier, draft_length, length, tape, len(index)).tokens

    law = torch.zeros(3**length, dtype=torch.float64)
    for _, mass, _, ids in enumerate_tape(run, 1):
        law.index_add_(0, encode(ids, 3), mass)
    return law


def ancestral(model: LanguageModel, length: int) -> Tensor:
    """The law (3**length,) of sequences drawn token by token, from whole passes over every prefix."""
    law = torch.ones(1, dtype=torch.float64)
    for size in range(length):
        prefixes = torch.tensor([[0, *prefix] for prefix in itertools.product(range(3), repeat=size)])
        laws = torch.stack([whole(model, prefix)[-1] for prefix in prefixes])
        law = (law.unsqueeze(1) * laws).flatten()
    return law


RULES: list[Verifier] = [Rejection(), Block(), Sjd(), Scd()]


@pytest.mark.parametrize("verifier", RULES, ids=lambda item: type(item).__name__)
def test_decoded_sequences_have_the_models_law(verifier: Verifier) -> None:
    """Every draw of a whole ``decode`` enumerated, caches carried from round to round: total variation below 1e-12."""
    target, drafter = (llama(seed, dtype=torch.float64) for seed in (1, 2))
    truth = ancestral(target, 3)
    assert (truth - ancestral(drafter, 3)).abs().sum() / 2 > 0.1  # or there would be nothing to correct
    assert (enumerated(target, drafter, verifier, 2, 3) - truth).abs().sum() / 2 < 1e-12
    assert exact_chain(target, drafter, verifier, 2, 3).tv < 1e-12  # merging equal states


def test_a_wrong_cache_is_seen() -> None:
    """The planted fault: a rejected draft stays in the cache. The same enumeration must not find the target's law."""

    class Stale(LanguageModel):
        def extend(self, state: Text, value: Tensor, length: Tensor) -> Text:
            kept = super().extend(state, value, length)
            if value.shape[1] < 3:
                return kept
            longer = super().extend(state, value, torch.full_like(length, 3))
            return Text(longer.parts, kept.count + (length < 3), kept.last)

    target, drafter = Stale(llama(1, dtype=torch.float64).network), llama(2, dtype=torch.float64)
    assert (enumerated(target, drafter, Rejection(), 2, 3) - ancestral(target, 3)).abs().sum() / 2 > 1e-3


@pytest.mark.parametrize(
    "processing", [Processing(temperature=0.6), Processing(top_k=2), Processing(top_p=0.7)], ids=str
)
def test_processed_alike_on_both_sides(processing: Processing) -> None:
    target, drafter = (Processed(llama(seed, dtype=torch.float64), processing) for seed in (1, 2))
    assert exact_chain(target, drafter, Rejection(), 2, 2).tv < 1e-12
    law = enumerated(target, drafter, Rejection(), 2, 2)
    assert (law - ancestral(llama(1, dtype=torch.float64), 2)).abs().max() > 1e-3  # it does something
    assert (law - enumerated(target, target, Rejection(), 1, 2)).abs().sum() / 2 < 1e-12


@pytest.mark.parametrize(
    ("top_k", "top_p", "temperature"), [(0, 1.0, 0.7), (3, 1.0, 1.3), (0, 0.8, 0.7), (4, 0.6, 1.5)]
)
def test_processing_is_that_of_transformers(top_k: int, top_p: float, temperature: float) -> None:
    """Its own processors, in its order: temperature, top-k, top-p. Temperature and top-k commute without ties."""
    from transformers.generation import logits_process as theirs

    scores = GeneratorTape(5).normal("scores", (50, 8)) * 2
    found = Processing(top_k=top_k or None, top_p=top_p, temperature=temperature)(scores)
    chain: list[Any] = [theirs.TemperatureLogitsWarper(temperature)]
    chain += [theirs.TopKLogitsWarper(top_k)] if top_k else []
    chain += [theirs.TopPLogitsWarper(top_p)] if top_p < 1 else []
    for process in chain:
        scores = process(None, scores)
    assert torch.equal(found > 0, scores > -torch.inf) and (found == 0).any() == (top_k > 0 or top_p < 1)
    assert (found - scores.softmax(-1)).abs().max() < 1e-14


@pytest.mark.parametrize("verifier", [Rejection(), Block(), Sjd()], ids=lambda item: type(item).__name__)
def test_decoding_a_batch(verifier: Verifier) -> None:
    """2 000 sampled rows in single precision against the exact law of two tokens: chi-square with 8 degrees of freedom
    beyond its 1 - 1e-6 quantile, 46.9, is a false alarm once in a million.
    """
    target, drafter = llama(1), llama(2)
    trace = decode(target, drafter, verifier, 3, 2, GeneratorTape(0), 2000)
    truth = ancestral(target, 2)
    count = torch.bincount(encode(trace.tokens, 3), minlength=9).double()
    assert ((count - 2000 * truth) ** 2 / (2000 * truth)).sum() < 46.9
    assert (trace.lengths.unique().numel() > 1) and (trace.work < 1).any()  # uneven rows, and some rounds saved


def test_it_is_a_model() -> None:
    assert isinstance(llama(1), Model)
    assert sum(part.numel() for part in llama(1).network.parameters()) < 1000


def test_what_is_refused() -> None:
    model = llama(1)
    for prompt in ([], [[1, 2]], torch.zeros(2, 1, 1)):
        with pytest.raises(ValueError, match="a prompt is ids"):
            model.start(2, prompt)
    with pytest.raises(ValueError, match="bos_token_id"):
        llama(1, bos_token_id=None).start(2)
    with pytest.raises(ValueError, match="sliding_attention"):
        llama(1, layer_types=["sliding_attention"])
    with pytest.raises(ValueError, match="sliding_window"):
        llama(1, sliding_window=4)
