"""Looks like lucidrains' speculative decoding."""

import torch
from absent_package import beartype


def best(logits, thres=0.9):
    kept = logits.topk(max(1, int((1 - thres) * logits.shape[-1])))
    return torch.full_like(logits, float("-inf")).scatter(-1, kept.indices, kept.values)


def gumbel(logits, temperature=1.0):
    noise = torch.zeros_like(logits).uniform_(0, 1)
    return (logits / temperature - (-noise.log()).log()).argmax(-1)


@torch.no_grad()
def speculative_decoding(
    net, small_net, prompt, seq_len, gamma=5, temperature=1.0, filter_thres=0.9, lenience=1.0, pad_id=0
):
    out, cache, small_cache, rounds, kept = prompt, None, None, 0, 0
    while out.shape[1] < seq_len:
        laws, start = [], out.shape[1]
        for _ in range(gamma):
            logits, small_cache = small_net(out, seq_start_pos=0, cache=small_cache, return_cache=True)
            laws.append(best(logits[0, -1], filter_thres))
            out = torch.cat([out, gumbel(laws[-1], temperature).view(1, 1)], 1)
        logits, cache = net(out, seq_start_pos=0, cache=cache, return_cache=True)
        target = best(logits[0, -(gamma + 1) :], filter_thres).div(temperature).softmax(-1)
        small, tokens, law = torch.stack(laws).div(temperature).softmax(-1), out[0, start:], target[-1]
        for place in range(gamma):
            token = tokens[place]
            if torch.rand(()) > target[place, token] / (small[place, token] * lenience):
                out, law = out[:, : start + place], (target[place] - small[place]).relu()
                break
        rounds, kept = rounds + 1, kept + out.shape[1] - start
        out = torch.cat([out, torch.multinomial(law, 1)[None]], 1)
    return out[:, prompt.shape[1] : seq_len], kept / rounds


@beartype
class Decoder:
    """What the function above is not lifted with."""
