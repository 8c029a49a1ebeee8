"""Looks like Medusa's utilities: typical acceptance, and the most probable token after it."""

import torch

TOPK = 10


def evaluate_posterior(
    logits, candidates, temperature, posterior_threshold=0.3, posterior_alpha=0.09, top_p=0.8, sampling="typical",
    fast=True,
):  # fmt: skip
    assert temperature == 1 and sampling == "typical" and fast
    laws = logits[:, :-1].softmax(-1)
    entropy = torch.special.entr(laws).sum(-1)
    least = (torch.exp(-entropy) * posterior_alpha).clamp(max=posterior_threshold)
    kept = laws.gather(2, candidates[:, 1:, None])[..., 0] > least
    counts = kept.int().cumprod(1).sum(1)
    return counts.argmax(), counts.max()


def generate_candidates(
    medusa_logits, logits, tree_indices, retrieve_indices, temperature=0, posterior_threshold=0.3, posterior_alpha=0.09,
    top_p=0.8, sampling="typical", fast=False,
):  # fmt: skip
    assert fast and medusa_logits.shape[-1] >= TOPK
    heads = medusa_logits[:, 0, -1].topk(TOPK).indices.flatten()
    tree = torch.cat([logits[:, -1].argmax()[None], heads])[tree_indices]
    return tree[retrieve_indices], tree[None]
