"""What adapters have in common: laws that end, and the loop around a Jacobi sampler in the form of SJD's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Law = Callable[[Sequence[int]], Tensor]
Verify = Callable[[Tensor, Tensor, Tensor], "Tensor | list[int]"]
Decode = Callable[[Law, Law, int], "Tensor | list[int]"]
WINDOW = 3  # the model's inputs in one pass, the last committed token among them: the least that shows a stale label


def ending(law: Law, length: int) -> Law:
    """The same law, but of token 0 alone after ``length`` tokens, so that steps past the end have no branches."""

    def ended(prefix: Sequence[int]) -> Tensor:
        if len(prefix) < length:
            return law(prefix)
        point = torch.zeros_like(law(()))
        point[0] = 1.0
        return point

    return ended


def step(source: Any, tokens: Tensor, labels: Tensor, laws: Tensor, committed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One pass of the project's own code: (committed tokens, the drafts left over, their labels), batch 1.

    ``tokens`` (1, L): the last committed token and the drafts; ``labels`` (1, L, V) the laws they are labelled with, of
    which the first is not looked at; ``laws`` (L, V) the target's after each of them.
    """
    advanced, scores = source.sampling_logits2tokens(
        laws.log()[None], committed, None, None, len(laws), lambda ids, logits: logits, has_eos_stopping_criteria=False
    )
    sampler = source.SpeculativeSampler(
        reject_sampling_relative_ids=-torch.ones(1, dtype=torch.long),
        reject_sampling_draft_token_logits=torch.zeros(1, laws.shape[-1], dtype=torch.long),
        sampling_last_draft_token=torch.zeros(1, dtype=torch.long),
    )
    _, matched, unmatched, _, new_labels = source.prefix_matching_next_tokens(
        tokens, advanced, scores, input_token_scores=labels, prefix_token_sampler=sampler,
        all_collected_input_ids=committed,
    )  # fmt: skip
    return matched, unmatched, new_labels


def one_round(source: Any) -> Verify:
    """Verification of one window, in the form that ``check_verifier`` takes."""

    def verify(draft_tokens: Tensor, draft_probs: Tensor, target_probs: Tensor) -> Tensor:
        start = torch.zeros(1, 1, dtype=torch.long)
        tokens, labels = torch.cat([start[0], draft_tokens])[None], torch.cat([draft_probs[:1], draft_probs])[None]
        return step(source, tokens, labels, target_probs, start)[0][0]

    return verify


def whole_loop(source: Any) -> Decode:
    """Whole sequences, in the form that ``check_decoder`` takes; a Jacobi decoder has no use for the drafter.

    A column enters as a repeat of its left neighbour, labelled with the point mass there: one of SJD's own schemes, and
    the one without draws. The window reaches past the end, where every law is a point and nothing branches.
    """

    def decode(target: Law, drafter: Law, length: int) -> list[int]:
        vocab, law = len(target(())), ending(target, length)
        done, drafts = torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 0, dtype=torch.long)
        labels = torch.zeros(1, 0, vocab, dtype=torch.float64)
        while done.shape[1] <= length:
            while drafts.shape[1] < WINDOW - 1:
                entry = (drafts if drafts.numel() else done)[:, -1:]
                point = torch.nn.functional.one_hot(entry, vocab).double()
                drafts, labels = torch.cat([drafts, entry], 1), torch.cat([labels, point], 1)
            prefix, line = done[0, 1:].tolist(), drafts[0].tolist()
            laws = torch.stack([law((*prefix, *line[:place])) for place in range(WINDOW)])
            tokens, every = torch.cat([done[:, -1:], drafts], 1), torch.cat([laws[None, :1], labels], 1)
            matched, drafts, labels = step(source, tokens, every, laws, done)
            done = torch.cat([done, matched], 1)
        return [int(token) for token in done[0, 1 : length + 1].tolist()]

    return decode
