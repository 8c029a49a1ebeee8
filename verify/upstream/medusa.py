"""Medusa's ``evaluate_posterior`` (Cai et al., 2401.10774) by typical acceptance, and ``generate_candidates`` after it.

``discrete``: one path of drafts at temperature 1, accepted while p(x) > min(0.3, 0.09 exp(-H(p))), and the root of the
next round, which the released defaults (``fast=True``) take to be the most probable token. Expected: lossy, as the
paper declares; nothing is drawn at all. To avoid: ``fast=False``, which calls ``get_typical_posterior_mask`` with an
argument too many.
"""

from typing import Any

import torch
from torch import Tensor

from verify.upstream.loops import Verify

PROJECT = "FasterDecoding/Medusa"
READ = "e2a5d20 (2024-04-18)"
NEEDS = {"medusa/model/utils.py": ("evaluate_posterior", "generate_candidates")}


def discrete(source: Any) -> Verify:
    """One path of drafts."""

    def verify(draft_tokens: Tensor, draft_probs: Tensor, target_probs: Tensor) -> list[int]:
        start, logits = torch.zeros(1, dtype=torch.long), target_probs.log()[None]
        best, count = source.evaluate_posterior(logits, torch.cat([start, draft_tokens])[None], temperature=1.0)
        heads = torch.zeros(1, 1, 1, 10, dtype=logits.dtype)  # of the next drafts, which nobody looks at
        here = logits[None, best, count][None]
        root, _ = source.generate_candidates(heads, here, start, start[None], temperature=1.0, fast=True)
        return [*draft_tokens[: int(count)].tolist(), int(root[0, 0])]

    return verify
