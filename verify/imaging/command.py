"""``specproof decode``: images, their trace and their figures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of ``run_decode``; defaults are ``Setting``'s."""
    parser.add_argument("--model", default="mnist.causal", metavar="DATA.KIND", help="mnist or digits, mar or causal")
    parser.add_argument("--verifier", default="coalescing", metavar="NAME", help="a rule on paths, or ancestral")
    parser.add_argument("--drafter", choices=("small", "none"), default="small", help="none: Jacobi decoding")
    parser.add_argument("--draft-length", type=int, default=4, metavar="N", help="tokens drafted a round (default: 4)")
    parser.add_argument("--prefill", type=float, default=0.0, metavar="SHARE", help="drawn by the target first, 0 to 1")
    parser.add_argument("--guidance", type=float, default=1.0, metavar="S", help="of the class, 1 for none")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="of the steps' noise (default: 1)")
    parser.add_argument("--steps", type=int, default=25, metavar="N", help="of the diffusion chain (default: 25)")
    parser.add_argument("--images", type=int, default=40, metavar="N", help="default: 40")
    parser.add_argument("--batch", type=int, default=40, metavar="N", help="images decoded side by side (default: 40)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--output", type=Path, default=Path("decoded"), metavar="FOLDER", help="default: decoded")


def run_decode(options: argparse.Namespace) -> int:
    """Decode, write and print what it cost. Images that the folder has already are not made again."""
    import torch

    from verify.errors import SubjectError
    from verify.imaging.figures import grid, heat, summary
    from verify.imaging.run import batches
    from verify.imaging.setting import Setting

    torch.set_num_threads(1)
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise SubjectError(f"no device {options.device!r} here; choose cpu") from error
    names = ("model", "verifier", "drafter", "draft_length", "prefill", "guidance", "temperature", "steps", "seed")
    setting = Setting(**{name: getattr(options, name) for name in names}, device=options.device)
    try:
        parts = list(batches(setting, options.images, options.batch, options.output))
    except KeyboardInterrupt:
        done, total = len(list(options.output.glob("batch-*.safetensors"))), -(-options.images // options.batch)
        told = f"interrupted: {done} of {total} batches are in {options.output}; the same call goes on from there"
        print(told, file=sys.stderr)
        raise
    tokens = torch.cat([part.tokens for part in parts])
    found = summary(setting, parts)
    grid(setting.images, tokens[:100]).savefig(options.output / "images.png", dpi=150)
    heat(setting.images, parts).savefig(options.output / "kept.png", dpi=150)
    (options.output / "summary.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, value in found.items():
        print(f"{name:<24}{value:.4g}")
    print(*(options.output / name for name in ("images.png", "kept.png", "summary.json")), sep="\n")
    return 0
