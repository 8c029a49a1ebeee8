"""What ``generate`` of the installed transformers samples from when it drafts, mode by mode, as found."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from verify.foreign.interpose import Room
from verify.foreign.runs import Runs, exact_runs
from verify.live import audit, recorded
from verify.records import Verdict
from verify.studies.live_audit import models
from verify.studies.live_audit.modes import Mode, modes
from verify.study import Row, Study

LENGTH = {"quick": 3, "thorough": 4}
CALLS = {"quick": 5, "thorough": 100}
TOKENS, SMALLEST, ALPHA, ASKED = 24, 1e-9, 1e-6, 50
TEMPERATURE = 0.6
ROUNDING = 1e-5
"""Biases below this are those of single precision, in which ``generate`` works."""
TEXT = """transformers {release}, every mode in which its generate() drafts while it samples, on models with a
vocabulary of three tokens and weights at random. Each call is made as a user makes it. Once with every draw answered
in every way, so that the law of {length} tokens is computed, and held against that of the same call without drafts:
the bias is their total variation distance. Once with its own draws, for {calls} sequences of {tokens} tokens: the
rounds are recorded while generate() runs, and their drafts, coins, lengths and replacements held against the laws that
the call itself worked with (false alarms: one in a million runs of a mode). generate() computes in single precision,
whose rounding alone makes biases of about 1e-7.

{verdict}

{remarks}"""
TWICE = """Asked for temperature {asked:g}, the assistant drafted at temperature {found:.2f}: it applies the processors
that the target hands it, and those of its own copy of the same settings. The drafts come with the law that they were
drawn from, so this costs acceptances and no exactness."""
LISTED = """Assistants with another tokenizer: the logits that such drafts come with are put in place by the order in
which the assistant's get_vocab() lists its words, and are right only if that is the order of their numbers.
PreTrainedTokenizerFast.get_vocab(), asked {asked} times for the same four words, listed them in {orders}."""
GEMMA = """An assistant for Gemma 4 cannot be made from its own configuration here: the constructor raises {error}.
Its row has transformers' candidate generator for such assistants, and an assistant of our own that drafts for it."""


@dataclass(frozen=True, eq=False)
class Found:
    """What one mode was found to do: the ``bias`` and the ``dropped`` mass, or the error that it ``raised``."""

    mode: Mode
    bias: float
    leaves: int
    error: str
    escapes: tuple[str, ...]
    live: Verdict

    @property
    def verdict(self) -> str:
        """``lossless``, ``lossy``, or ``fails`` where the call raises."""
        return "fails" if self.error else "lossless" if self.bias < ROUNDING and not self.escapes else "lossy"


def run(budget: str = "quick") -> Study:
    """Every mode; or a sentence, where transformers is not installed or has other modes than those known here."""
    try:
        with quiet():
            every = modes()
    except ImportError as error:
        return Study("A live audit of transformers", f"Nothing was audited: {error}. Install specproof[peers].")
    with quiet():
        found = [examine(mode, LENGTH[budget], CALLS[budget]) for mode in every]
    return present(found, budget)


def present(found: list[Found], budget: str) -> Study:
    """The study of what was found."""
    release = version("transformers")
    parts = [f"{sum(each.verdict == 'lossless' for each in found)} of {len(found)} modes have the law of the same call "
             "without drafts."]  # fmt: skip
    for each in found:
        if each.verdict == "lossy":
            aside = " This is what its documentation says." if each.mode.expected == "lossy" else ""
            parts.append(f"Lossy, by {each.bias:.3f}: {each.mode.name} ({each.mode.note}).{aside}")
        elif each.verdict == "fails":
            parts.append(f"Fails: {each.mode.name} ({each.mode.note}): {each.error}.")
    sizes = {"length": LENGTH[budget], "calls": CALLS[budget], "tokens": TOKENS}
    text = TEXT.format(release=release, verdict=" ".join(parts), remarks="\n\n".join(remarks(found)), **sizes)
    return Study(f"A live audit of transformers {release}", text, {"Mode by mode": [row(each) for each in found]})


def remarks(found: list[Found]) -> Iterator[str]:
    """What explains the table, of each as far as it is so."""
    listed = [each for each in found if "tokenizer" in each.mode.drafting and each.verdict == "lossy"]
    if listed:
        yield LISTED.format(asked=ASKED, orders=orders())
    drafted_at = drafting_temperature()
    if abs(drafted_at - TEMPERATURE) > 0.01:
        yield TWICE.format(asked=TEMPERATURE, found=drafted_at)
    error = gemma_assistant()
    if error:
        yield GEMMA.format(error=error)


def row(found: Found) -> Row:
    """One mode in a line."""
    bad = sorted({item.check for item in found.live.findings if item.rejects})
    return {
        "mode": found.mode.name,
        "verdict": found.verdict,
        "bias (tv)": f"{found.bias:.2e}" if not found.error else "",
        "runs enumerated": found.leaves,
        "drafted by": found.live.subject,
        "rounds recorded": found.live.scope,
        "record": found.live.status if found.live.findings else "nothing to judge",
        "checks that reject": ", ".join(bad),
        "note": "; ".join(part for part in (found.mode.note, found.error, *found.escapes) if part),
    }


def examine(mode: Mode, length: int, calls: int) -> Found:
    """Both kinds of evidence about one mode."""
    with recorded() as recording, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        error = ""
        try:
            for _ in range(calls):
                mode.call(TOKENS)
        except Exception as raised:  # whatever it raises is what is found
            error = f"{type(raised).__name__}: {' '.join(str(raised).split())}"
    live = audit(recording, ALPHA)
    if error:
        return Found(mode, 1.0, 0, error, (), live)
    (with_drafts, escapes), (without, _) = (law(mode, length, drafting) for drafting in (True, False))
    return Found(mode, distance(with_drafts, without), with_drafts.leaves, "", escapes, live)


def law(mode: Mode, length: int, drafting: bool) -> tuple[Runs, tuple[str, ...]]:
    """The law of a call's tokens, every draw answered in every way, and what escaped the answers."""

    def call() -> tuple[int, ...]:
        return mode.call(length, drafting)

    with Room(call) as room:
        found = exact_runs(call, room, min_mass=SMALLEST, rerun=100)
    return found, tuple(dict.fromkeys(room.escapes))


def distance(first: Runs, second: Runs) -> float:
    """Total variation, and whatever mass was not followed or ended in an error."""
    apart = sum(abs(first.law.get(key, 0.0) - second.law.get(key, 0.0)) for key in first.law.keys() | second.law.keys())
    lost = sum(runs.dropped + sum(mass for mass, _ in runs.raised) for runs in (first, second))
    return apart / 2 + lost


def gemma_assistant() -> str:
    """What is raised where the smallest assistant for Gemma 4 is made from its own classes; nothing if it can be."""
    from transformers import Gemma4AssistantConfig, Gemma4AssistantForCausalLM, Gemma4TextConfig

    options: Mapping[str, object] = {
        "vocab_size": 3, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 4, "global_head_dim": 4, "vocab_size_per_layer_input": 0,
        "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
    }  # fmt: skip
    try:
        config = Gemma4AssistantConfig(text_config=Gemma4TextConfig(**options), backbone_hidden_size=8)  # type: ignore[arg-type]
        Gemma4AssistantForCausalLM(config)
    except Exception as error:
        return f"{type(error).__name__}, {error}"
    return ""


def drafting_temperature(asked: float = TEMPERATURE) -> float:
    """The temperature at which an assistant drafts when ``generate`` is asked for one: the spread of its own logits
    after the prompt, over that of the logits that its first draft comes with.
    """
    assistant = models.drafter(1)
    with recorded() as recording, torch.random.fork_rng(devices=[]):
        Mode("", models.llama(), {"assistant_model": assistant}, {"temperature": asked}).call(2)
    told = recording.rounds[0].draft
    assert told is not None  # the first round of an assistant has drafts
    with torch.no_grad():
        own = assistant(recording.rounds[0].prefix[None], use_cache=False).logits[0, -1]
    return float(own.std() / told[0].std())


def orders() -> str:
    """In how many orders a fast tokenizer lists its words: how many would be chance, so it is one or several."""
    found = {tuple(models.tokenizer("cabx").in_any_order()) for _ in range(ASKED)}
    return "one order" if len(found) == 1 else "several orders"


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, no warnings, and weights loaded in the thread that asks for them."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    name, level = "HF_DEACTIVATE_ASYNC_LOAD", logging.get_verbosity()
    before, bars = os.environ.get(name), logging.is_progress_bar_enabled()
    os.environ[name] = "1"
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
