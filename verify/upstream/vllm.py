"""vLLM's ``RejectionSampler`` in pure torch (the V0 engine's, taken out on 2025-07-18, #21152).

``discrete``: one request, its bonus token drawn from the target's last law by the file's own ``_multinomial``, as the
engine's sampler would. Expected: lossless; the floor under the residual is float32's smallest normal number, 1e-38.
To avoid: FlashInfer, whose kernels draw where no enumeration can answer; it is off.
"""

import logging
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from verify.upstream.loops import Verify

PROJECT = "vllm-project/vllm"
READ = "release 0.9.2 (2025-07)"
NEEDS = {
    "vllm/model_executor/layers/spec_decode_base_sampler.py": ("SpecDecodeStochasticBaseSampler",),
    "vllm/model_executor/layers/rejection_sampler.py": ("RejectionSampler", "_multinomial"),
}
STAND_INS = {
    "logger": logging.getLogger("vllm"),
    "envs": SimpleNamespace(VLLM_USE_FLASHINFER_SAMPLER=False),
    "current_platform": SimpleNamespace(device_type="cpu"),
    "chain_speculative_sampling": None,
}


def discrete(source: Any) -> Verify:
    """One request of the batch."""

    def verify(draft_tokens: Tensor, draft_probs: Tensor, target_probs: Tensor) -> Tensor:
        sampler = source.RejectionSampler(use_flashinfer=False)
        sampler.init_gpu_tensors("cpu")
        bonus = source._multinomial(target_probs[-1:].clone(), 1, 1, {})
        emitted: Tensor = sampler(target_probs[None], bonus, draft_probs[None], draft_tokens[None])[0]
        return emitted[emitted >= 0]

    return verify
