"""The ``speculative_decoding`` of lucidrains/speculative-decoding: a whole decoder.

``decoder``: whole sequences, two drafts a round, by two networks that look up the target's and the drafter's laws of
every prefix; they keep no cache, so that what the function does with caches is not judged. Expected: lossless. To
avoid: ``filter_thres`` above 0, which cuts both laws to their best tokens (the default 0.9 keeps a tenth of them), and
``lenience`` other than 1, which is a declared bias. The file needs einops.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from verify.upstream.loops import Decode, Law, ending

PROJECT = "lucidrains/speculative-decoding"
READ = "72171ac (2024-12-22)"
NEEDS = {"speculative_decoding/speculative_decoding.py": ("speculative_decoding",)}


def _network(law: Law) -> Callable[..., tuple[Tensor, tuple[Tensor, None]]]:
    def forward(tokens: Tensor, **_: Any) -> tuple[Tensor, tuple[Tensor, None]]:
        line = tokens[0, 1:].tolist()
        laws = torch.stack([law(line[:end]) for end in range(len(line) + 1)])
        return laws.log()[None], (torch.zeros(1, 1, len(laws), 1), None)

    return forward


def decoder(source: Any) -> Decode:
    """Whole sequences after a start token."""

    def decode(target: Law, drafter: Law, length: int) -> Tensor:
        small, start = _network(ending(drafter, length)), torch.zeros(1, 1, dtype=torch.long)
        options = dict(seq_len=length + 1, gamma=2, filter_thres=0.0)
        tokens: Tensor = source.speculative_decoding(_network(ending(target, length)), small, start, **options)[0]
        return tokens[0]

    return decode
