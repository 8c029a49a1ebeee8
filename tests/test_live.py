"""Recording a real ``generate()``: what is recorded is what happened, and the audit of it sees planted faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from verify.live import Recording, audit, recorded

transformers = pytest.importorskip("transformers", reason="the recorder is for generate() of transformers")
from transformers.generation import utils  # noqa: E402

from verify.studies import live_audit  # noqa: E402
from verify.studies.live_audit import ROUNDING, Found, distance, drafting_temperature, examine, law, present, quiet, row  # noqa: E402
from verify.studies.live_audit.models import Gemma4AssistantStandIn, drafter, gemma, llama  # noqa: E402
from verify.studies.live_audit.modes import Mode, assisted, universal  # noqa: E402

torch.set_num_threads(1)
PROMPT = torch.tensor([[0, 1]])


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def generate(model: Any, tokens: int, prompt: Tensor = PROMPT, **options: Any) -> Tensor:
    more = {"attention_mask": torch.ones_like(prompt), "do_sample": True, "top_k": 0, "max_new_tokens": tokens}
    made: Tensor = model.generate(prompt, **more, **options)
    return made[0]


def probs(model: Any, ids: Tensor, temperature: float = 1.0) -> Tensor:
    """The law after every prefix of ``ids``, by a whole pass without a cache."""
    with torch.no_grad():
        return (model(ids[None], use_cache=False).logits[0].double() / temperature).softmax(-1)


def test_what_is_recorded_is_what_happened() -> None:
    """Prefixes, drafts and tokens chain up to the output; both laws are those of whole passes, after the processors."""
    target, assistant = llama(), drafter()
    with recorded() as live:
        out = generate(target, 12, assistant_model=assistant)
    assert live.generators == {"AssistedCandidateGenerator"}
    read = PROMPT[0]
    for turn in live.rounds:
        assert torch.equal(turn.prefix, read) and turn.whole and turn.sampled
        assert torch.equal(turn.emitted[: turn.kept], turn.drafted[: turn.kept]) and len(turn.emitted) == turn.kept + 1
        places = slice(len(read) - 1, None)
        ids = torch.cat((read, turn.drafted))
        assert (turn.target.double().softmax(-1) - probs(target, ids)[places]).abs().max() < 1e-5
        if turn.draft is not None:
            assert (turn.draft.double().softmax(-1) - probs(assistant, ids)[places][:-1]).abs().max() < 1e-5
        read = torch.cat((read, turn.emitted))
    assert torch.equal(read, out)
    assert sum(turn.draft is not None for turn in live.rounds) >= len(live.rounds) - 1 > 3


def test_recording_changes_nothing() -> None:
    target, assistant = llama(), drafter()
    before = (utils._speculative_sampling, utils.GenerationMixin._get_candidate_generator)
    torch.manual_seed(5)
    plain = generate(target, 20, assistant_model=assistant)
    torch.manual_seed(5)
    with recorded():
        assert utils._speculative_sampling is not before[0]
        assert torch.equal(generate(target, 20, assistant_model=assistant), plain)
    assert (utils._speculative_sampling, utils.GenerationMixin._get_candidate_generator) == before
    with pytest.raises(RuntimeError, match="mine"), recorded():
        raise RuntimeError("mine")
    assert (utils._speculative_sampling, utils.GenerationMixin._get_candidate_generator) == before


def recording(calls: int, target: Any, **options: Any) -> Recording:
    with recorded() as live:
        for _ in range(calls):
            generate(target, 24, **options)
    return live


def test_a_correct_sampler_is_not_accused() -> None:
    """About 200 rounds, 12 findings at 1e-6 in all: a false alarm once in a million runs of this test."""
    verdict = audit(recording(20, llama(), assistant_model=drafter()))
    assert verdict.status == "inconclusive" and verdict.bias_lower == 0 and not verdict.notes
    assert {item.check for item in verdict.findings} == {
        "violations", "proposal", "coin", "accepted_length", "residual_law", "excess_acceptance",
    }  # fmt: skip
    assert sum(item.n for item in verdict.findings if item.check == "violations") > 150


def test_prompt_lookup_is_held_against_the_rule_of_a_point_mass() -> None:
    live = recording(10, llama(), prompt_lookup_num_tokens=2, prompt=torch.tensor([[0, 1, 2, 0, 1]]))
    assert live.generators == {"PromptLookupCandidateGenerator"}
    trace = live.traces()[2]
    assert torch.equal(trace.draft.probs.argmax(-1), trace.drafted) and (trace.draft.probs.max(-1).values == 1).all()
    assert audit(live).status == "inconclusive"
    assert all(len(turn.prefix) + len(turn.drafted) < 29 for turn in live.rounds if turn.whole)


def always(ids: Tensor, logits: Tensor, length: int, scores: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
    """The planted fault: every draft is kept."""
    bonus = torch.multinomial(scores[0, -1].softmax(-1), 1)
    return torch.cat((ids[:, -length:], bonus[None]), 1), torch.tensor(length)


always.__signature__ = __import__("inspect").signature(utils._speculative_sampling)  # type: ignore[attr-defined]


def test_keeping_every_draft_is_seen_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bias of a first token is TV(p, q) on average; the certificate must find most of it, and never more."""
    monkeypatch.setattr(utils, "_speculative_sampling", always)
    live = recording(20, llama(), assistant_model=drafter())
    verdict = audit(live)
    assert verdict.status == "lossy" and {"coin", "excess_acceptance"} <= {
        item.check for item in verdict.findings if item.rejects
    }
    trace = live.traces()[2]
    size = float(1 - trace.draft[:, 0].overlap(trace.target[:, 0]).mean())
    assert 0.3 * size < verdict.bias_lower < size


def test_greedy_drafts_with_a_dense_law_are_seen() -> None:
    """The candidate generator for Gemma 4 assistants: drafts are the arg max, and come with the law they ignore."""
    verdict = audit(recording(60, gemma(), assistant_model=Gemma4AssistantStandIn()))
    assert verdict.status == "lossy" and "proposal" in {item.check for item in verdict.findings if item.rejects}


def test_greedy_decoding_is_recorded_and_not_judged() -> None:
    with recorded() as live:
        mask = torch.ones_like(PROMPT)
        llama().generate(PROMPT, attention_mask=mask, do_sample=False, max_new_tokens=10, assistant_model=drafter())
    assert live.rounds and not any(turn.sampled for turn in live.rounds) and not live.traces()
    assert audit(live).findings == ()


def test_an_assisted_call_has_the_law_of_the_plain_one() -> None:
    """And the plain one has the model's: the product of the conditionals of whole passes, in double precision."""
    mode = assisted("", options={"temperature": 0.6})
    (drafted, escapes), (plain, _) = law(mode, 2, True), law(mode, 2, False)
    assert not escapes and drafted.leaves > plain.leaves and distance(drafted, plain) < ROUNDING
    target = llama().double()
    for tokens, mass in plain.law.items():
        rows = probs(target, torch.tensor([0, 1, *tokens]), 0.6)[1:]
        assert abs(mass - float(rows[0, tokens[0]] * rows[1, tokens[1]])) < 1e-6
    assert len(plain.law) == 9


def test_an_ensemble_is_off_by_its_closed_form() -> None:
    """Two tokens, one of them drafted: accepting with 1 - w + w p/q emits w p + (1 - w) q, so (1 - w) TV(p, q)."""
    target, assistant = llama(), drafter(1)
    mode = Mode("", target, {"assistant_model": assistant, "assistant_ensemble_weight": 0.25})
    apart = distance(law(mode, 2, True)[0], law(mode, 2, False)[0])
    laws = [probs(model, PROMPT[0])[-1] for model in (target, assistant)]
    assert apart == pytest.approx(0.75 * float((laws[0] - laws[1]).abs().sum() / 2), abs=1e-6) and apart > 0.05


def test_the_study_reports_what_it_finds() -> None:
    """In transformers 5.23 the order in which the assistant's words are listed decides. Whatever a release does, what
    is reported must agree with the law that was enumerated.
    """
    for listed in ("cabx", "acbx"):
        found = examine(universal("cabx", listed, ""), 2, 2)
        assert (found.verdict == "lossy") == (found.bias >= ROUNDING) and not found.escapes
        if transformers.__version__.startswith("5.23."):
            assert found.verdict == {"cabx": "lossless", "acbx": "lossy"}[listed]
        assert row(found)["drafted by"] == "UniversalSpeculativeDecodingGenerator"
    broken = examine(Mode("", llama(), {"assistant_model": drafter(), "assistant_ensemble_weight": 7.0}), 2, 1)
    assert broken.verdict == "fails" and broken.error.startswith("ValueError") and row(broken)["bias (tv)"] == ""


def test_the_temperature_of_drafts() -> None:
    """Asked for none, the assistant's own; asked for t, transformers 5.23 applies it twice to the drafts."""
    assert drafting_temperature(1.0) == pytest.approx(1.0, abs=1e-5)
    if transformers.__version__.startswith("5.23."):
        assert drafting_temperature(0.5) == pytest.approx(0.25, abs=1e-5)


def test_the_page_says_what_was_found() -> None:
    """Findings made up, so that every sentence is used: none of them depends on the release."""
    clean = Found(Mode("first", None, {}), 1e-8, 5, "", (), audit(Recording()))
    modes = [Mode("second", None, {"tokenizer": None}, note="why"), Mode("third", None, {}, note="how")]
    wrong = [
        Found(mode, 0.25, 5, error, (), clean.live) for mode, error in zip(modes, ("", "KeyError: x"), strict=True)
    ]
    study = present([clean, *wrong], "quick")
    for words in ("1 of 3 modes have the law", "Lossy, by 0.250: second (why).", "Fails: third (how): KeyError: x.",
                  "order of their numbers", transformers.__version__):  # fmt: skip
        assert words in study.text
    assert [row["verdict"] for row in study.tables["Mode by mode"]] == ["lossless", "lossy", "fails"]
    assert "order of their numbers" not in present([clean], "quick").text


def test_without_transformers_the_study_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> list[Mode]:
        raise ImportError("no module named transformers")

    monkeypatch.setattr(live_audit, "modes", missing)
    study = live_audit.run()
    assert "Nothing was audited: no module named transformers" in study.text and not study.tables


@pytest.mark.slow
def test_the_whole_study() -> None:
    from verify.studies.live_audit import run

    study = run()
    rows = next(iter(study.tables.values()))
    assert {row["verdict"] for row in rows} <= {"lossless", "lossy", "fails"} and len(rows) == 18
    plain = [row for row in rows if row["mode"] == "assistant model, constant schedule"]
    assert plain[0]["verdict"] == "lossless" and plain[0]["checks that reject"] == ""
