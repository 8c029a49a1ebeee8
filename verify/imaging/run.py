"""Batches of decoded images, each written when it is finished, so that an interruption loses none of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

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
        return torch.empty_like(self.trace.tokens).scatter(1, self._index(self.trace.tokens), self.trace.tokens)

    @property
    def kept(self) -> Tensor:
        """Which tokens (rows, N), in the order of decoding, are kept drafts: not replaced, nor the target's own."""
        lengths, kept = self.trace.lengths, self.trace.kept
        rows, size = self.trace.tokens.shape[:2]
        found, filled = (
            torch.zeros(rows, size + kept.shape[2] + 1, dtype=torch.bool),
            torch.zeros(rows, dtype=torch.long),
        )
        for length, coins in zip(lengths, kept, strict=True):
            at = filled.unsqueeze(1) + torch.arange(coins.shape[1])
            found.scatter_(1, at, coins & (torch.arange(coins.shape[1]) < length.unsqueeze(1)))
            filled = (filled + length).clamp(max=size)
        return found[:, :size]

    def _index(self, tokens: Tensor) -> Tensor:
        return self.place.to(tokens.device).unsqueeze(-1).expand_as(tokens)


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
            yield _read(file)
            continue
        start = time.perf_counter()
        trace, place, label = setting.decoded(batch, number)
        found = Decoded(trace, place.cpu(), label.cpu(), time.perf_counter() - start)
        if rows < batch:
            found = _first(found, rows)
        if file is not None:
            _write(found, file)
        yield found


def _first(found: Decoded, rows: int) -> Decoded:
    """The first ``rows`` images: a last batch is whole, so that its images do not depend on how many are wanted."""
    trace = found.trace
    parts = (trace.tokens[:rows], trace.lengths[:, :rows], trace.kept[:, :rows], trace.log_accept[:, :rows])
    return replace(found, trace=Trace(*parts), place=found.place[:rows], label=found.label[:rows])


def _claim(folder: Path, wanted: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    known, wanted = folder / SETTING, {name: item for name, item in wanted.items() if name not in ("device", "images")}
    if known.exists() and json.loads(known.read_text()) != wanted:
        raise SubjectError(f"{folder} holds images of another setting ({known.name}); choose another folder")
    known.write_text(json.dumps(wanted, indent=1) + "\n")


def _write(found: Decoded, file: Path) -> None:
    from safetensors.torch import save_file

    trace = found.trace
    parts = {"tokens": trace.tokens, "lengths": trace.lengths, "kept": trace.kept, "log_accept": trace.log_accept}
    parts = {name: part.cpu().contiguous() for name, part in parts.items()}
    part = file.with_suffix(".part")
    save_file(
        {**parts, "place": found.place.contiguous(), "label": found.label, "seconds": torch.tensor(found.seconds)}, part
    )
    part.replace(file)  # a file that is there is whole


def _read(file: Path) -> Decoded:
    from safetensors.torch import load_file

    parts = load_file(file)
    trace = Trace(parts["tokens"], parts["lengths"], parts["kept"], parts["log_accept"])
    return Decoded(trace, parts["place"], parts["label"], float(parts["seconds"]))
