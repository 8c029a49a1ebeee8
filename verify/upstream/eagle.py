"""EAGLE's ``evaluate_posterior`` (Li et al., 2406.16858) at a temperature above 0, and ``update_inference_inputs``.

The candidates are the paths of a tree of top-k tokens, so every draft is a point mass: a child x is accepted with
probability p(x), and after a rejection p loses x and is renormalised. The next token is drawn by the second function.
``discrete``: one path, whatever law it was drafted from. ``decoder``: whole sequences, the tree the drafter's two best
tokens, two deep. Expected: both lossless. To avoid: the branch without a logits processor, which is greedy decoding.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from verify.upstream.loops import Decode, Law, Verify, ending

PROJECT = "SafeAILab/EAGLE"
READ = "cb7e084 (2026-02-19)"
NEEDS = {"eagle/model/utils.py": ("evaluate_posterior", "update_inference_inputs")}
LAYER = SimpleNamespace(topK_genrate=lambda *_, **__: (None,) * 4)  # would draft the next tree
MODEL = SimpleNamespace(ea_layer=LAYER, base_model=SimpleNamespace(lm_head=None))


def _step(source: Any, paths: Tensor, logits: Tensor) -> list[int]:
    """The tokens that one round adds: ``paths`` (K, 1 + depth), each from the root, ``logits`` after each token."""
    processor, start, states = (
        (lambda _, scores: scores),
        torch.zeros(1, 1, dtype=torch.long),
        logits.new_zeros(1, 9, 1),
    )
    best, count, law = source.evaluate_posterior(logits, paths, processor)
    places = torch.arange(paths.shape[1]).expand_as(paths)
    ids, *_, token = source.update_inference_inputs(
        start, paths, best, count, places, processor, 0, [states], start.clone(), MODEL, states, law
    )
    return [*ids[0, 2:].tolist(), int(token)]  # after the start and the root


def discrete(source: Any) -> Verify:
    """One path of drafts, each held for a point mass."""
    root = torch.zeros(1, dtype=torch.long)
    return lambda drafts, _, laws: _step(source, torch.cat([root, drafts])[None], laws.log()[None])


def decoder(source: Any) -> Decode:
    """Whole sequences from trees of the drafter's two best tokens."""

    def decode(target: Law, drafter: Law, length: int) -> list[int]:
        done: list[int] = []
        while len(done) < length:
            children = {a: drafter([*done, a]).topk(2).indices.tolist() for a in drafter(done).topk(2).indices.tolist()}
            paths = [(a, b) for a, best in children.items() for b in best]
            laws = [ending(target, length)([*done, *path[:depth]]) for path in paths for depth in range(3)]
            done += _step(source, torch.tensor([(0, *path) for path in paths]), torch.stack(laws).log().view(4, 3, -1))
        return done[:length]

    return decode
