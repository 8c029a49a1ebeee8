"""Looks like gpt-fast's generate.py."""

import torch
import torch._dynamo.config
from model import Transformer

torch._dynamo.config.verbose = True


def race(law):
    return torch.argmax(law / torch.empty_like(law).exponential_(1), -1, keepdim=True).int()


@torch.compile(mode="reduce-overhead", fullgraph=True)
def speculative_decode(
    model: Transformer, draft_model: Transformer, cur_token: torch.Tensor, input_pos: int, speculate_k: int, **sampling
) -> torch.Tensor:
    tokens, laws = [cur_token.view(1).int()], []
    for step in range(speculate_k):
        logits = draft_model(tokens[-1].view(1, -1), torch.tensor([input_pos + step]))
        laws.append(logits[0, -1].softmax(-1))
        tokens.append(race(laws[-1]))
    line = torch.cat(tokens)
    wanted = model(line.view(1, -1), torch.arange(input_pos, input_pos + speculate_k + 1))[0].softmax(-1)
    for step in range(speculate_k):
        token = line[step + 1]
        if torch.rand(()) > wanted[step, token] / laws[step][token]:
            return torch.cat([line[1 : step + 1], race((wanted[step] - laws[step]).clamp(min=0))])
    draft_model(line[-1].view(1, -1), torch.tensor([input_pos + speculate_k]))
    return torch.cat([line[1:], race(wanted[-1])])
