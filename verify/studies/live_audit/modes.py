"""Every way in which ``generate`` drafts, as a call on tiny models, beside the same call without drafts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from verify.studies.live_audit import models

ALL = {"top_k": 0}
"""Neither top-k nor anything else is applied, which by default keeps the 50 most probable tokens."""
PROMPT, REPEATING = (0, 1), (0, 1, 2, 0, 1)


@dataclass(frozen=True, eq=False)
class Mode:
    """``drafting``: the options that make ``target.generate`` draft; ``options``: those that it has either way.

    ``before``: what puts back, before each call, what a call leaves behind in its models. ``expected``: ``lossless``
    unless the documentation says that the output's law is another. ``note``: what a reader must know besides.
    """

    name: str
    target: Any
    drafting: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    prompt: tuple[int, ...] = PROMPT
    before: Callable[[], Any] | None = None
    expected: str = "lossless"
    note: str = ""

    def call(self, length: int, drafting: bool = True) -> tuple[int, ...]:
        """The tokens of one sequence, ``length`` or up to an end token."""
        if self.before is not None:
            self.before()
        ids = torch.tensor([self.prompt])
        made = self.target.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, max_new_tokens=length,
            **{**ALL, **self.options}, **(self.drafting if drafting else {}),
        )  # fmt: skip
        return tuple(made[0, len(self.prompt) :].tolist())


def modes() -> list[Mode]:
    """All of them. Each has models of its own, for some modes change theirs."""
    found = [
        assisted("assistant model, constant schedule"),
        scheduled("heuristic", "the number of drafts is kept in the assistant from call to call; put back before each"),
        scheduled("heuristic_transient"),
        assisted("assistant model, as configured by default", models.drafter(20, assistant_confidence_threshold=0.4)),
        assisted("assistant model, temperature 0.6", models.drafter(1), {"temperature": 0.6}),
        assisted("assistant model, top-k 2", models.drafter(), {"top_k": 2}),
        assisted("assistant model, top-p 0.95", models.drafter(1), {"top_p": 0.95}),
        assisted("assistant model, repetition penalty 1.5", models.drafter(1), {"repetition_penalty": 1.5}),
        assisted("assistant model, with an end token", models.drafter(), {"eos_token_id": 2, "pad_token_id": 0}),
        Mode(
            "assistant model, ensemble weight 0.5", models.llama(),
            {"assistant_model": models.drafter(1), "assistant_ensemble_weight": 0.5}, expected="lossy",
            note="documented as a relaxation (DIVERSE, arXiv 2604.07622)",
        ),
        Mode("prompt lookup", models.llama(), {"prompt_lookup_num_tokens": 2}, prompt=REPEATING,
             note="drafts without a law: the target's own tokens are drawn and compared"),
        early_exit(),
        Mode("multi-token prediction (MTP)", models.with_prediction_layer(), {"use_mtp": True}),
        Mode("block of masked places (DFlash)", models.llama(),
             {"assistant_model": models.block_drafter(), "speculation_type": "dflash"}),
        Mode("single-position drafts (Gemma 4 assistant)", models.gemma(),
             {"assistant_model": models.Gemma4AssistantStandIn()},
             note="drafts are the arg max, and come with the logits of the dense law; an assistant of our own"),
        *(universal(words, listed, note) for words, listed, note in (
            ("cabx", "cabx", "its get_vocab lists the words in the order of their numbers"),
            ("cabx", "acbx", "its get_vocab lists them in another order, as that of a fast tokenizer does at random"),
            ("ba", "ba", "the assistant has no word that the target lacks"),
        )),
    ]  # fmt: skip
    return found


def assisted(name: str, assistant: Any = None, options: Mapping[str, Any] | None = None) -> Mode:
    """An assistant model with the same vocabulary."""
    return Mode(name, models.llama(), {"assistant_model": assistant or models.drafter()}, options or {})


def scheduled(schedule: str, note: str = "") -> Mode:
    """A schedule that changes the number of drafts from round to round."""
    assistant = models.drafter(1, num_assistant_tokens_schedule=schedule)

    def before() -> None:
        assistant.generation_config.num_assistant_tokens = 1

    name = f"assistant model, {schedule} schedule"
    return Mode(name, models.llama(), {"assistant_model": assistant}, before=before, note=note)


def early_exit() -> Mode:
    """The target's own first layer drafts."""
    target = models.llama()
    target.generation_config.update(num_assistant_tokens=2, assistant_confidence_threshold=0.0)
    return Mode("early exit after the first of two layers", target, {"assistant_early_exit": 1})


def universal(words: str, listed: str, note: str) -> Mode:
    """An assistant with another tokenizer; the target's words are a, b, c."""
    drafting = {
        "assistant_model": models.drafter(vocab=len(words)),
        "tokenizer": models.tokenizer("abc"),
        "assistant_tokenizer": models.tokenizer(words, listed),
    }
    return Mode(f"assistant with another tokenizer: {', '.join(listed)}", models.llama(), drafting, note=note)
