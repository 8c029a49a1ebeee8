"""gpt-fast's ``speculative_decode``: drafting, one evaluation of the target, verification, and the token after it.

``decoder``: whole sequences, up to three tokens a step, by two models that look up the target's and the drafter's laws
and remember the token at every position, as a cache would. Expected: lossless where it runs. At 32971d3 it raises
RuntimeError (issue #209, 2024-10-17): since batches came (61c193d, 2024-08-29) the sampled tokens have two dimensions,
and are joined with the current one, which has one. To avoid: temperature and top-k other than the defaults, 1 and none.
"""

from typing import Any

import torch
from torch import Tensor

from verify.upstream.loops import Decode, Law, ending

PROJECT = "pytorch-labs/gpt-fast"
READ = "bc04265 (2024-08-22) and 32971d3 (2024-09-15)"
NEEDS = {"generate.py": ("speculative_decode",)}


class _Remembering:
    """The logits (1, S, V) after each of S tokens, put at their positions; position 0 is before the sequence."""

    def __init__(self, law: Law) -> None:
        self.law = law
        self.tokens: dict[int, int] = {}

    def __call__(self, x: Tensor, input_pos: Tensor) -> Tensor:
        self.tokens |= dict(zip(input_pos.tolist(), x.flatten().tolist(), strict=True))
        prefixes = [[self.tokens[at] for at in range(1, end + 1)] for end in input_pos.tolist()]
        return torch.stack([self.law(prefix) for prefix in prefixes]).log()[None]


def decoder(source: Any) -> Decode:
    """Whole sequences, step by step, after a start token."""

    def decode(target: Law, drafter: Law, length: int) -> list[int]:
        done, models = [0], [_Remembering(ending(law, length)) for law in (target, drafter)]
        while len(done) <= length:
            done += source.speculative_decode(*models, torch.tensor(done[-1]), len(done) - 1, 2).tolist()
        return done[1 : length + 1]

    return decode
