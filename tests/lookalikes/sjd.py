"""Looks like SJD's scheduler: a window of drafts verified up to the first rejection."""

import torch
from absent_package.cache import Cache

TABLE = Cache.build()  # needs what is not installed, and nothing below needs it


def sampling_logits2tokens(
    logits, all_collected_input_ids, unfinished_sequences, pad_token_id, output_token_num=1, logits_processor=None,
    logits_warper=None, do_sample=True, has_eos_stopping_criteria=True, do_cfg=False, guidance_scale=3.0,
    generator=None, is_force_no_cfg=False,
):  # fmt: skip
    assert do_sample and not do_cfg and not has_eos_stopping_criteria and logits_warper is None
    laws = logits_processor(all_collected_input_ids, logits[:, -output_token_num:]).softmax(-1)
    return torch.stack([torch.multinomial(row, 1, generator=generator)[:, 0] for row in laws]), laws


class SpeculativeSampler:
    def __init__(
        self, collected_draft_logits=None, collected_advanced_logits=None, max_num_collected_logits=2, generator=None,
        draft_type="jacobian_states", reject_sampling_relative_ids=None, reject_sampling_draft_token_logits=None,
        sampling_last_draft_token=None,
    ):  # fmt: skip
        assert reject_sampling_relative_ids is not None and sampling_last_draft_token is not None
        self.generator = generator

    def __call__(
        self, draft_tokens, advanced_tokens, draft_prob, advanced_prob, logits_processor=None, logits_warper=None,
        all_collected_input_ids=None, **kwargs,
    ):  # fmt: skip
        (batch, length), tokens, scores = draft_tokens.shape, advanced_tokens.clone(), advanced_prob.clone()
        firsts = []
        for row in range(batch):
            first = length
            for place in range(1, length):
                token = draft_tokens[row, place]
                before, now = draft_prob[row, place], advanced_prob[row, place - 1]
                if torch.rand((), generator=self.generator) < now[token] / before[token]:
                    tokens[row, place - 1] = token
                    scores[row, place - 1] = before  # of committed columns: nobody reads it
                else:
                    left = (now - before).clamp(min=0)
                    tokens[row, place - 1] = torch.multinomial(left, 1, generator=self.generator)[0]
                    first = place
                    break
            firsts.append(first)
        return firsts, tokens, scores


def prefix_matching_next_tokens(
    model_input_ids, next_tokens, next_token_scores, is_prefilling_phase=False, input_token_scores=None,
    prefix_token_sampler=None, **kwargs,
):  # fmt: skip
    firsts, tokens, scores = prefix_token_sampler(
        draft_tokens=model_input_ids, advanced_tokens=next_tokens, draft_prob=input_token_scores,
        advanced_prob=next_token_scores, **kwargs,
    )  # fmt: skip
    cut = min(firsts)
    return cut, tokens[:, :cut], tokens[:, cut:], scores[:, :cut], scores[:, cut:]
