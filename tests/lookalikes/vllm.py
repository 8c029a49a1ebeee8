"""Looks like vLLM's rejection sampler."""

import torch
import vllm.envs as envs
from vllm.logger import init_logger
from vllm.model_executor.layers.spec_decode_base_sampler import SpecDecodeStochasticBaseSampler
from vllm.platforms import current_platform

logger = init_logger(__name__)


class RejectionSampler(SpecDecodeStochasticBaseSampler):
    def __init__(self, strict_mode: bool = False, use_flashinfer: bool | None = None):
        super().__init__(strict_mode=strict_mode)
        if envs.VLLM_USE_FLASHINFER_SAMPLER if use_flashinfer is None else use_flashinfer:
            raise NotImplementedError
        logger.info("torch samples")

    def forward(self, target_with_bonus_probs, bonus_token_ids, draft_probs, draft_token_ids, seeded_seqs=None):
        target, token = target_with_bonus_probs[:, :-1], draft_token_ids[..., None]
        ratio = (target.gather(2, token) / draft_probs.gather(2, token))[..., 0].clamp(max=1)
        left = (target - draft_probs).clamp(min=torch.finfo(torch.float32).tiny)
        substitutes = _multinomial(left[0] / left[0].sum(-1, keepdim=True), 1, left.shape[1], {}).view(1, -1)
        return self._create_output(torch.rand(ratio.shape) < ratio, substitutes, draft_token_ids, bonus_token_ids)


@torch.compile(dynamic=True, backend=current_platform.simple_compile_backend)
def _multinomial(probs, num_samples, k, seeded_seqs):
    assert num_samples == 1 and not seeded_seqs
    return probs.div_(torch.empty_like(probs).exponential_(1.0)).argmax(1).view(-1, 1)
