"""``specproof bench decode``: options in, one JSON for each device out."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

SIZES = ("base", "large", "huge", "tiny")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of ``run_bench``. What is left out is ``tiny_setting``'s on a CPU, and all of it on a GPU."""
    parser.add_argument("what", choices=("decode",), help="decode: a draft, a step and a verification of MAR")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    parser.add_argument("--size", choices=SIZES, nargs="+", help="default: tiny on a CPU, else base large huge")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), nargs="+", help="default: both")
    parser.add_argument("--batch", type=int, nargs="+", metavar="N", help="images side by side (default: up to 256)")
    parser.add_argument("--draft-length", type=int, nargs="+", metavar="N", help="default: 2 4 8 16 32")
    parser.add_argument("--steps", type=int, metavar="N", help="of the head's chain (default: 100)")
    parser.add_argument("--seconds", type=float, metavar="S", help="for each figure (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("reports"), metavar="FOLDER", help="default: reports")


def run_bench(options: argparse.Namespace) -> int:
    """Measure, print what it allows, and keep what was measured whenever it is interrupted."""
    import torch

    from verify.bench.decode import Setting, device_name, measure, read, tiny_setting, write
    from verify.errors import SubjectError
    from verify.report.provenance import provenance

    torch.set_num_threads(1)
    try:
        device = torch.device(options.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SubjectError(f"no device {options.device!r} here; choose cpu") from error
    setting = tiny_setting() if device.type == "cpu" else Setting(("base", "large", "huge"))
    asked = {
        "sizes": options.size, "dtypes": options.dtype, "batches": options.batch,
        "draft_lengths": options.draft_length, "steps": options.steps, "seconds": options.seconds,
    }  # fmt: skip
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in asked.items() if value
    }
    setting = replace(setting, **given)
    if min(*setting.batches, setting.steps, setting.seconds) <= 0 or min(setting.draft_lengths) < 0:
        raise SubjectError("batches, steps and seconds must be above 0, and draft lengths 0 or more")
    path = options.output / f"bench-decode-{device_name(device)}.json"
    points, notes = read(path, setting)
    stamp = provenance("specproof bench decode", 0, device_name(device))
    write(path, setting, stamp, points, notes)
    for point in measure(setting, device, points, notes, _followed):
        points.append(point)
        write(path, setting, stamp, points, notes)
    write(path, setting, stamp, points, notes)
    for line in _summary(points):
        print(line)
    print(*notes, path, sep="\n")
    return 0


def _followed(items: Sequence[Any]) -> Iterable[Any]:
    from verify.progress import track

    return track(items, label="measuring")


def _summary(points: list[dict[str, Any]]) -> Iterable[str]:
    """The best draft length where nine drafts in ten are accepted, for each model, number type and batch."""
    from verify.bench.derived import largest, speedups

    yield "size       dtype     way       batch  drafter       length  v      c      speed-up, acceptance 0.9 (at most)"
    for row in largest(speedups(points)):
        if row["acceptance"] == 0.9:
            first = f"{row['size']:<11}{row['dtype']:<10}{row['way']:<10}{row['batch']:<7}{row['drafter']:<14}"
            yield first + (
                f"{row['draft_length']:<8}{row['v']:<7.2f}{row['c']:<7.2f}{row['rule']:.2f} ({row['most']:.2f})"
            )
