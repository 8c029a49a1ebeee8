"""Tables as production engines store them, and one-draft rules that were published on such tables, right and wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from distributions.tape import GeneratorTape
from verify.vocabulary.identity import Identity, check_identity
from verify.vocabulary.precision import chance

TOP = 50


def logits(contexts: int, vocab: int, spread: float = 5.0, noise: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of a drafter and a target, float64: N(0, spread^2), a few dominating tokens, the drafter off by noise."""
    tape = GeneratorTape(seed)
    target = spread * tape.normal("target", (contexts, vocab))
    target[:, :4] += 2 * spread + spread * tape.normal("peaks", (contexts, 4))
    return target + noise * tape.normal("draft", (contexts, vocab)), target


def truncated(scores: Tensor, keep: int = TOP) -> Tensor:
    """Logits with all but the ``keep`` largest of each row at minus infinity."""
    return scores.masked_fill(scores < scores.topk(keep).values[..., -1:], -math.inf)


def table(scores: Tensor, dtype: torch.dtype) -> Tensor:
    """The softmax as engines store it: taken in float32, then rounded to ``dtype``."""
    return torch.softmax(scores.float(), -1).to(dtype)


def ratio(draft: Tensor, target: Tensor) -> Tensor:
    """target / draft in float32."""
    return target.float() / draft.float()


def residual(draft: Tensor, target: Tensor) -> Tensor:
    """(target - draft)+ in float32; the target where rounding leaves nothing."""
    excess = (target.float() - draft.float()).clamp(min=0)
    return excess if bool(excess.any()) else target.float()


def or_first(draft: Tensor, target: Tensor) -> Tensor:
    """(target - draft)+ in float32; token 0 where rounding leaves nothing, as an argmax of zeros answers."""
    excess = (target.float() - draft.float()).clamp(min=0)
    return excess if bool(excess.any()) else torch.nn.functional.one_hot(torch.tensor(0), len(target)).float()


@dataclass(frozen=True)
class Case:
    """A rule on tables: ``accept`` and ``replace`` as for ``check_identity``, and ``make`` the tables it runs on: the
    claimed draft, the target and the law drafts are drawn from (None: as claimed).
    """

    source: str
    accept: Callable[[Tensor, Tensor], Tensor] = ratio
    replace: Callable[[Tensor, Tensor], Tensor] = residual
    make: Callable[[Tensor, Tensor, torch.dtype], tuple[Tensor, Tensor, Tensor | None]] = lambda draft, target, dtype: (
        table(draft, dtype),
        table(target, dtype),
        None,
    )

    def check(self, draft: Tensor, target: Tensor, dtype: torch.dtype) -> Identity:
        """The identity on tables made of these logits."""
        claimed, wanted, drawn = self.make(draft, target, dtype)
        return check_identity(self.accept, self.replace, claimed, wanted, drawn=drawn)


def _narrow_draft(draft: Tensor, target: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    return table(draft, dtype), table(target, dtype), torch.softmax(draft.to(torch.bfloat16), -1)


def _raw_label(draft: Tensor, target: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    return table(draft, dtype), table(truncated(target), dtype), table(truncated(draft), dtype)


def _top_target(draft: Tensor, target: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    return table(draft, dtype), table(truncated(target), dtype), None


def _one_step_up(draft: Tensor, target: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    wanted = table(target, dtype)
    place = wanted.argmax(-1, keepdim=True)
    above = torch.nextafter(wanted.gather(-1, place), torch.ones((), dtype=dtype))
    return wanted.scatter(-1, place, above), wanted, None


def _coin(strict: bool) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda draft, target: chance(ratio(draft, target), torch.bfloat16, strict).float()


CASES: dict[str, Case] = {
    "correct, float32 arithmetic": Case("Leviathan et al., 2211.17192"),
    "correct, the tables' own arithmetic": Case(
        "the same", lambda draft, target: target / draft, lambda draft, target: (target - draft).clamp(min=0)
    ),
    "residual floor 1e-5": Case(
        "vLLM #13933 (review, 2025-03)",
        replace=lambda draft, target: (target.float() - draft.float()).clamp(min=1e-5),
    ),
    "residual + 1e-10": Case(
        "as in the released SCD sampler", replace=lambda draft, target: residual(draft, target) + 1e-10
    ),
    "bfloat16 coin, u < a": Case("uniforms drawn in the model's dtype", _coin(True)),
    "bfloat16 coin, u <= a, top-50 target": Case(
        "the same, with SGLang #35771 (2026-08)", _coin(False), make=_top_target
    ),
    "draft drawn in bfloat16, ratio in float32": Case("DeepSpec #31 (2026-06)", make=_narrow_draft),
    "top-50 draft, raw label": Case("transformers #47932 (2026-08)", make=_raw_label),
    "no residual, index 0": Case("vLLM GHSA-8wr5-jm2h-8r4f and others", replace=or_first, make=_one_step_up),
    "no residual, drawn from the target": Case("a correct fallback", make=_one_step_up),
}
