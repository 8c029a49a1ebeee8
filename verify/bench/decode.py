"""What a step of MAR costs, and what the parallel verification of a draft costs."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distributions.mar import Mar, draw, masking
from distributions.mar.head import HeadNetwork
from distributions.mar.shapes import BASE, HUGE, LARGE, TINY, Shape
from distributions.tape import GeneratorTape
from distributions.whole import whole
from verify.bench.derived import DRAFTERS, KEYS, PARTS, Points, key_of, largest, speedups
from verify.bench.measure import OutOfMemory, Run, Timing, forget, prepared, timed, ways

SIZES = {"base": BASE, "large": LARGE, "huge": HUGE, "tiny": TINY, "tiny drafter": replace(TINY, depth=1)}
SMALL = 64
"""Images up to which compiled functions and graphs are measured: beyond, a device is busy with arithmetic."""
Follow = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Setting:
    """What is measured: sizes, number types, images side by side, drafted tokens; ``steps`` of the head's chain, and
    ``seconds`` for each figure. 0 among the ``draft_lengths`` is a step without drafts, and always measured.
    """

    sizes: tuple[str, ...]
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    draft_lengths: tuple[int, ...] = (2, 4, 8, 16, 32)
    steps: int = 100
    seconds: float = 1.0


def tiny_setting() -> Setting:
    """What a CPU measures in a few seconds, to show that all of it works."""
    return Setting(("tiny",), batches=(1, 4), draft_lengths=(1, 3), steps=10, seconds=0.1)


def device_name(device: torch.device) -> str:
    """What to call the device in a file's name."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {platform.machine()}"
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")


@torch.no_grad()
def network(shape: Shape, device: torch.device, dtype: torch.dtype) -> Mar:
    """A model of this size with weights at random, on which the cost of a step does not depend."""
    with torch.device(device):
        made = Mar(shape)
    return draw(made, GeneratorTape(0, str(device))).to(dtype)


def backbone(model: Mar, batch: int, drafted: int) -> Run:
    """One pass over ``batch`` images, half filled, and as many more as there are drafted tokens: each prefix of a draft
    is an image of its own, with a mask of its own.
    """
    device, shape = model.mask_token.device, model.shape
    tape, rows = GeneratorTape(1, str(device)), batch * (drafted + 1)
    tokens = tape.normal("tokens", (rows, shape.tokens, shape.dim)).to(model.mask_token.dtype)
    order = masking.orders(tape, rows, shape.tokens)
    left = (shape.tokens // 2 - torch.arange(rows, device=device) % (drafted + 1)).clamp(min=1)
    seen, present = model._visible(masking.masked(order, left))
    label = torch.zeros(rows, dtype=torch.long, device=device)
    return partial(_pass, model, tokens, label, seen, present)


@torch.no_grad()
def _pass(model: Mar, tokens: Tensor, label: Tensor, seen: Tensor, present: Tensor | None) -> Tensor:
    """As ``Mar.forward``, the places of the visible tokens being known: no figure crosses to the CPU."""
    return model.decode(model.encode(tokens, label, seen, present), seen, present)


def head(model: Mar, batch: int, drafted: int, steps: int) -> Run:
    """The chain of the diffusion head, ``steps`` evaluations one after another, of a token in each of these images."""
    device, shape = model.mask_token.device, model.shape
    tape, rows = GeneratorTape(2, str(device)), batch * (drafted + 1)
    noise = tape.normal("noise", (rows, shape.dim)).to(model.head.dtype)
    told = tape.normal("told", (rows, shape.width)).to(model.head.dtype)
    times = torch.linspace(999, 0, steps, device=device).long().unbind()
    return partial(_chain, model.head, noise, told, times)


@torch.no_grad()
def _chain(network: HeadNetwork, value: Tensor, told: Tensor, times: Sequence[Tensor]) -> Tensor:
    for time in times:
        value = value - 0.01 * network(value, time, told)[:, : network.dim]
    return value


def measure(
    setting: Setting, device: torch.device, known: Points, notes: list[str], follow: Follow = iter
) -> Iterator[dict[str, Any]]:
    """A point for each size, number type, way, batch, draft length and part of the model; those ``known`` are not
    measured again. ``notes`` gets a sentence for each that does not fit the device, after which larger ones of the
    same kind are left out, and for each that cannot be run in this way.
    """
    done = {key_of(point) for point in known}
    able, sentence = ways(device)
    _note(notes, sentence)
    drafters = [DRAFTERS[size] for size in setting.sizes if size in DRAFTERS]
    models = [(size, dtype) for size in dict.fromkeys((*setting.sizes, *drafters)) for dtype in setting.dtypes]
    held: dict[tuple[str, str], Mar] = {}
    full: dict[tuple[str, ...], int] = {}
    for (size, dtype), way, images, batch, drafted, part in follow(_order(setting, models, able)):
        key, kind = (size, dtype, way, batch, drafted, part), (size, dtype, way, part)
        if key in done or images >= full.get(kind, images + 1):
            continue
        try:
            timing = _timing(held, (size, dtype), way, batch, drafted, part, setting, device)
        except (OutOfMemory, torch.OutOfMemoryError):
            full[kind] = images
            _note(notes, f"{size} {dtype} {way} {part}: no memory for {images} images; larger ones are left out.")
        except Exception as error:
            if way == "eager":
                raise
            full[kind] = 0
            _note(notes, f"{size} {dtype} {way} {part}: left out, as it raised {type(error).__name__}: {error}"[:300])
        else:
            yield dict(zip(KEYS, key, strict=True)) | {"images": images} | asdict(timing)


def _timing(
    held: dict[tuple[str, str], Mar], model: tuple[str, str], way: str, batch: int, drafted: int, part: str,
    setting: Setting, device: torch.device,
) -> Timing:  # fmt: skip
    """One figure. At most one model is ``held``: the one before goes before the next one comes."""
    if model not in held:
        held.clear()
        forget(device)
        held[model] = network(SIZES[model[0]], device, getattr(torch, model[1]))
    run = backbone(held[model], batch, drafted) if part == "backbone" else None
    return timed(prepared(run or head(held[model], batch, drafted, setting.steps), way), device, setting.seconds)


def _note(notes: list[str], sentence: str) -> None:
    if sentence and sentence not in notes:
        notes.append(sentence)


def _order(setting: Setting, models: list[tuple[str, str]], able: tuple[str, ...]) -> list[Any]:
    """Everything to be measured, model by model, small before large."""
    lengths = sorted({0, *setting.draft_lengths})
    sizes = sorted((batch * (drafted + 1), batch, drafted) for batch in setting.batches for drafted in lengths)
    return [
        (model, way, images, batch, drafted, part)
        for model in models
        for way in able
        for images, batch, drafted in sizes
        if way == "eager" or images <= SMALL
        for part in PARTS
    ]


def read(path: Path, setting: Setting) -> tuple[Points, list[str]]:
    """The points of an earlier run on this device, if they were measured alike with the same release of torch."""
    if not path.is_file():
        return [], []
    found = json.loads(path.read_text(encoding="utf-8"))
    alike = found["provenance"]["torch"] == torch.__version__ and found["setting"]["steps"] == setting.steps
    return (found["points"], found["notes"]) if alike else ([], [])


def write(path: Path, setting: Setting, provenance: dict[str, str], points: Points, notes: list[str]) -> None:
    """All that is known so far, in place of what was there, never half of it."""
    table = speedups(points)
    content = {
        "provenance": {**provenance, "torch": torch.__version__},
        "setting": asdict(setting), "points": points, "speedups": table, "largest": largest(table), "notes": notes,
    }  # fmt: skip
    with whole(path) as beside:
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
