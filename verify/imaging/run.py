"""Batches of decoded images, each written when it is finished, so that an interruption loses none of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from distributions.whole import whole
from verify.decode import Trace
from verify.errors import SubjectError
from verify.imaging.setting import Setting
from verify.progress import track

SETTING = "setting.json"


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images and how they came about: the ``trace``, the ``place`` (rows, N) of each of its tokens, the ``label``
    (rows,), and the ``seconds`` they took.
    """

    trace: Trace
    place: Tensor
    label: Tensor
    seconds: float

    @property
    def tokens(self) -> Tensor:
        """Tokens (rows, N, d) in raster order."""
        tokens = self.trace.tokens
        return torch.empty_like(tokens).scatter(1, self.place.unsqueeze(-1).expand_as(tokens), tokens)

    @property
    def kept(self) -> Tensor:
        """Which tokens (rows, N), in the order of decoding, are kept drafts: not replaced, nor the target's own."""
        lengths, kept = self.trace.lengths, self.trace.kept
        rows, size = self.trace.tokens.shape[:2]
        filled = torch.zeros(rows, dtype=torch.long)
        found = torch.zeros(rows, size + kept.shape[2], dtype=torch.bool)
        for length, coins in zip(lengths, kept, strict=True):
            at = filled.unsqueeze(1) + torch.arange(coins.shape[1])
            found.scatter_(1, at, coins & (torch.arange(coins.shape[1]) < length.unsqueeze(1)))
            filled = (filled + length).clamp(max=size)
        return found[:, :size]


def batches(setting: Setting, images: int, batch: int, folder: Path | None = None) -> Iterator[Decoded]:
    """``images`` in batches, with a progress bar. In a ``folder`` each batch is a file, and is not made twice.

    Raises SubjectError for a folder that holds images of another setting, and for counts below one.
    """
    if min(images, batch) < 1:
        raise SubjectError("give one image or more, in batches of one or more")
    if folder is not None:
        _claim(folder, {**asdict(setting), "images": images, "batch": batch})
    for number in track(range(-(-images // batch)), label=f"{setting.model}, {setting.verifier}"):
        rows = min(batch, images - number * batch)
        file = None if folder is None else folder / f"batch-{number:05d}.safetensors"
        if file is not None and file.exists():
            yield _first(_read(file), rows)
            continue
        start = time.perf_counter()
        trace, place, label = setting.decoded(batch, number)
        trace = Trace(*(part.cpu() for part in (trace.tokens, trace.lengths, trace.kept, trace.log_accept)))
        found = Decoded(trace, place.cpu(), label.cpu(), time.perf_counter() - start)
        if file is not None:
            _write(found, file)
        yield _first(found, rows)


def _first(found: Decoded, rows: int) -> Decoded:
    """The first ``rows`` images, and their share of the time: a last batch is made, and written, as a whole, so that
    its images do not depend on how many are wanted.
    """
    trace, all_rows = found.trace, len(found.label)
    parts = (trace.tokens[:rows], trace.lengths[:, :rows], trace.kept[:, :rows], trace.log_accept[:, :rows])
    seconds = found.seconds * rows / all_rows
    return replace(found, trace=Trace(*parts), place=found.place[:rows], label=found.label[:rows], seconds=seconds)


def _claim(folder: Path, wanted: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    known, wanted = folder / SETTING, {name: item for name, item in wanted.items() if name not in ("device", "images")}
    if known.exists():
        if json.loads(known.read_text(encoding="utf-8")) != wanted:
            raise SubjectError(f"{folder} holds images of another setting ({known.name}); choose another folder")
        return
    with whole(known) as beside:
        beside.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")


def _write(found: Decoded, file: Path) -> None:
    from safetensors.torch import save_file

    trace = found.trace
    parts = {"tokens": trace.tokens, "lengths": trace.lengths, "kept": trace.kept, "log_accept": trace.log_accept}
    parts |= {"place": found.place, "label": found.label, "seconds": torch.tensor(found.seconds, dtype=torch.float64)}
    with whole(file) as beside:
        save_file({name: item.contiguous() for name, item in parts.items()}, beside)


def _read(file: Path) -> Decoded:
    from safetensors.torch import load_file

    parts = load_file(file)
    trace = Trace(parts["tokens"], parts["lengths"], parts["kept"], parts["log_accept"])
    return Decoded(trace, parts["place"], parts["label"], float(parts["seconds"]))
