"""Looks like EAGLE's utilities: the children of a node are tried in turn, each held for a point mass."""

import random

import torch
from absent_package import Configuration


def evaluate_posterior(logits: torch.Tensor, candidates: torch.Tensor, logits_processor: Configuration):
    path, depth = 0, 1
    while depth < candidates.shape[1]:
        same = (candidates[:, :depth] == candidates[path, :depth]).all(1)
        law = logits_processor(None, logits[path, depth - 1][None])[0].softmax(0)
        children = dict(zip(candidates[same, depth].tolist(), torch.nonzero(same)[:, 0].tolist(), strict=True))
        for token, where in children.items():
            if random.random() <= law[token]:
                path, depth = where, depth + 1
                break
            law[token] = 0
            law = law / law.sum()
        else:
            return torch.tensor(path), depth - 1, law
    return torch.tensor(path), depth - 1, logits_processor(None, logits[path, depth - 1][None])[0].softmax(0)


@torch.no_grad()
def update_inference_inputs(
    input_ids, candidates, best_candidate, accept_length, retrieve_indices, logits_processor, new_token,
    past_key_values_data_list, current_length_data, model, hidden_state_new, sample_p,
):  # fmt: skip
    chosen = candidates[None, best_candidate, : accept_length + 1]
    token = torch.multinomial(sample_p, 1)[None]
    grown = torch.cat([input_ids, chosen], 1)
    tree = model.ea_layer.topK_genrate(hidden_state_new, input_ids=torch.cat([grown, token], 1), head=None)
    return grown, *tree, new_token + accept_length + 1, None, token
