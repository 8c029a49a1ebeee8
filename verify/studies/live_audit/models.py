"""Models of transformers with a vocabulary of three tokens, whose every weight is drawn from a tape."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from distributions.huggingface import untrained
from distributions.tape import GeneratorTape

VOCAB, WIDTH, SPREAD = 3, 8, 0.5
TARGET, DRAFTER = 6, 10
"""Seeds of two models that differ much, by context, and are sure of little."""
NO_TOKENS: dict[str, None] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
SIZES: dict[str, Any] = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 2,
                         "num_key_value_heads": 1, **NO_TOKENS}  # fmt: skip


def llama(seed: int = TARGET, vocab: int = VOCAB, layers: int = 2) -> Any:
    """A Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=vocab, num_hidden_layers=layers, max_position_embeddings=64, **SIZES)
    return untrained(LlamaForCausalLM(config), GeneratorTape(seed), SPREAD)


def drafter(tokens: int = 2, vocab: int = VOCAB, seed: int = DRAFTER, **options: Any) -> Any:
    """A smaller Llama that drafts ``tokens`` at a time, unless its generation ``options`` say otherwise."""
    model = llama(seed, vocab, layers=1)
    settings = {"num_assistant_tokens": tokens, "assistant_confidence_threshold": 0.0, **options}
    model.generation_config.update(**settings)
    return model


def block_drafter(seed: int = 3) -> Any:
    """An assistant that fills a block of two masked places in one pass over the target's hidden states (DFlash)."""
    from transformers import MuseGlimmerAssistantConfig, MuseGlimmerAssistantModel

    config = MuseGlimmerAssistantConfig(
        num_hidden_layers=1, head_dim=4, sliding_window=32, block_size=3, mask_token_id=2, target_layer_ids=[0, 1],
        **SIZES,
    )  # fmt: skip
    return untrained(MuseGlimmerAssistantModel(config), GeneratorTape(seed), SPREAD)


def gemma(seed: int = 5) -> Any:
    """A Gemma 4, the family whose assistants read the target's own keys and values."""
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig

    sizes: dict[str, Any] = {"head_dim": 4, "global_head_dim": 4, "vocab_size_per_layer_input": VOCAB, **SIZES}
    config = Gemma4TextConfig(
        vocab_size=VOCAB, num_hidden_layers=2, hidden_size_per_layer_input=0, sliding_window=32,
        layer_types=["sliding_attention", "full_attention"], tie_word_embeddings=False, **sizes,
    )  # fmt: skip
    return untrained(Gemma4ForCausalLM(config), GeneratorTape(seed), SPREAD)


class Gemma4AssistantStandIn(torch.nn.Module):
    """What ``generate`` takes for a Gemma 4 assistant, by its name: one hidden layer over token and hidden state.

    The candidate generator is transformers' own; it asks of an assistant no more than this.
    """

    def __init__(self, seed: int = 7) -> None:
        super().__init__()
        like = drafter()
        self.config, self.generation_config, self.device = like.config, like.generation_config, like.device
        self.project = torch.nn.Linear(2 * WIDTH, WIDTH, bias=False)
        self.head = torch.nn.Linear(WIDTH, VOCAB, bias=False)
        untrained(self, GeneratorTape(seed), SPREAD)

    def forward(self, inputs_embeds: Tensor, **others: Any) -> SimpleNamespace:
        """The logits and the hidden state after ``inputs_embeds`` (1, 1, 2 D); keys and values are not looked at."""
        hidden = torch.tanh(self.project(inputs_embeds))
        return SimpleNamespace(logits=self.head(hidden), last_hidden_state=hidden)


def with_prediction_layer() -> Any:
    """A model with a layer that drafts one token more (MTP); ``generate`` reads that layer from a checkpoint."""
    from safetensors.torch import save_file
    from transformers import MellumConfig, MellumForCausalLM
    from transformers.modeling_layers import MtpModel

    config = MellumConfig(
        vocab_size=VOCAB, num_hidden_layers=1, head_dim=4, moe_intermediate_size=WIDTH, num_experts=2,
        num_experts_per_tok=1, mlp_layer_types=["dense"], layer_types=["full_attention"], num_mtp_layers=1,
        mtp_layer_types=["full_attention"], mtp_mlp_layer_types=["dense"], sliding_window=32, **SIZES,
    )  # fmt: skip
    model = untrained(MellumForCausalLM(config), GeneratorTape(1), SPREAD)
    names = {"eh_proj": "fc", "enorm": "pre_fc_norm_embedding", "hnorm": "pre_fc_norm_hidden", "post_norm": "norm"}
    weights = {}
    for name, part in untrained(MtpModel(model, 1), GeneratorTape(9), SPREAD).state_dict().items():
        if name.startswith("layers.0."):
            first, _, rest = name.removeprefix("layers.0.").partition(".")
            place = f"mtp.{names[first]}.{rest}" if first in names else f"mtp.layers.0.{rest}"
            weights[place] = part.clone().contiguous()
    model.checkpoint = tempfile.TemporaryDirectory()  # as long as the model is there
    save_file(weights, Path(model.checkpoint.name) / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(model.checkpoint.name)
    model.config.name_or_path, model.config.dtype = model.checkpoint.name, torch.float32
    return model


def tokenizer(words: str, listed: str = "") -> Any:
    """One word a token, numbered in the order of ``words``; ``get_vocab`` lists them in the order of ``listed``.

    A fast tokenizer's own ``get_vocab`` promises no order, and the one found here lists the same vocabulary in another
    order from call to call.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    class Listed(PreTrainedTokenizerFast):
        def get_vocab(self) -> dict[str, int]:
            found = self.in_any_order()
            return {word: found[word] for word in listed or words}

        def in_any_order(self) -> dict[str, int]:
            found: dict[str, int] = super().get_vocab()
            return found

    plain = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    made: Any = Listed
    return made(tokenizer_object=plain)
