"""Looks like the base of vLLM's samplers."""

import torch
from vllm.platforms import current_platform


class SpecDecodeBaseSampler(torch.nn.Module):
    def __init__(self, strict_mode: bool = False):
        super().__init__()
        self.emitted = None

    def init_gpu_tensors(self, device):
        self.emitted = torch.tensor(
            0, device=f"{current_platform.device_type}:0" if isinstance(device, int) else device
        )

    def _create_output(self, accepted, substitute_token_ids, draft_token_ids, bonus_token_ids):
        length = int(accepted.int().cumprod(1).sum())
        if length == draft_token_ids.shape[1]:
            tokens = torch.cat([draft_token_ids, bonus_token_ids], 1)
        else:
            blank = torch.full((1, draft_token_ids.shape[1] - length), -1)
            tokens = torch.cat([draft_token_ids[:, :length], substitute_token_ids[:, length : length + 1], blank], 1)
        self.emitted += (tokens != -1).sum()
        return tokens


class SpecDecodeStochasticBaseSampler(SpecDecodeBaseSampler):
    pass
