"""Two reference pairs on which every planted defect states its exact bias."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distributions.autoregressive import Markov
from distributions.categorical import Categorical
from distributions.tape import GeneratorTape
from verify.exact import exact_chain, exact_rows
from verify.scenarios import Scenario
from verify.verifier import Verifier

TOKENS = 2
"""How many decoded tokens the bias is about of a rule whose claim is about sequences: enough for a second round."""


def reversed_ramp() -> Scenario:
    """Pair A: 8 tokens, the draft is the target reversed, and their total variation is 1/2 in every context.

    The target's logits are a ramp of slope s = log(3) / 4 that begins at the last token t and wraps round: the
    probability of t + k is proportional to r^k with r = e^s, the draft's to r^-k. So TV is P(k >= 4) - P(k < 4) under
    the target, (r^4 - 1) / (r^4 + 1) = (3 - 1) / (3 + 1). A sequence opens as after token 4.
    """
    vocab, last = 8, torch.tensor([*range(8), 4])
    step = (torch.arange(vocab) - last.unsqueeze(-1)) % vocab
    logits = math.log(3) / 4 * step.double()
    return Scenario(Markov(logits.neg().exp(), 1), Markov(logits.exp(), 1), name="A, reversed ramp")


def noisy_logits() -> Scenario:
    """Pair B: 16 tokens, standard normal logits for each last token, and a draft with noise of scale 1/2 on these.

    Total variation 0.08 to 0.27, in the mean 0.16: a fairly good drafter.
    """
    tape = GeneratorTape(17)
    logits = tape.normal("logits", (17, 16))
    noise = tape.normal("noise", (17, 16)) / 2
    return Scenario(Markov((logits + noise).exp(), 1), Markov(logits.exp(), 1), name="B, noisy logits")


def references() -> dict[str, Scenario]:
    """The pairs by letter."""
    return {"A": reversed_ramp(), "B": noisy_logits()}


def bias(verifier: Verifier, scenario: Scenario, draft_length: int) -> float:
    """The exact bias of a rule on a pair, in total variation: of one round after the first or the last token of the
    vocabulary, whichever is larger, or of ``TOKENS`` decoded tokens where the rule's claim is about sequences.

    A rule whose claim is about batches is asked for the law of one drafted token in a batch of these two contexts, its
    ``token_law``: that of whole rounds has too many leaves.
    """
    pair, contexts = (scenario.target, scenario.drafter), scenario.contexts[[0, -1]]
    if verifier.claim.level == "sequence":
        return exact_chain(*pair, verifier, draft_length, TOKENS).tv
    if verifier.claim.level == "batch":
        target, drafter = (Categorical(model.table[contexts[:, 0]]) for model in pair)
        law: Tensor = verifier.token_law(target, drafter)  # type: ignore[attr-defined]
        return float((law - target.probs).abs().sum(-1).max()) / 2
    return float(exact_rows(verifier, *pair, contexts, draft_length).tv.max())
