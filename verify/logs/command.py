"""``specproof audit-log``: options in, exit status out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verify.errors import SubjectError

if TYPE_CHECKING:
    from verify.logs.tally import LogTally
    from verify.records import Verdict

EXAMPLE = '{"draft": "a1", "position": 0, "claimed": 0.25, "target": 0.5, "accepted": true}'
STATUS = {"consistent": 0, "faulty": 1, "inconclusive": 2}
INTERRUPTED = 130


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``specproof audit-log``."""
    parser.epilog = (
        "A record is one drafted token: draft (block), position (from 0), claimed and target (its probabilities under "
        "drafter and target, as the sampler used them), accepted (true, false, or null where it was not examined); and "
        "optionally overlap, context, token, time. verify/logs/records.py says more. On a line: " + EXAMPLE
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="JSON lines, gzipped or not, or Parquet")
    rules = "the law of the coins: min(1, target / claimed), or anything (default: token)"
    parser.add_argument("--rule", choices=("token", "any"), default="token", help=rules)
    parser.add_argument("--alpha", type=float, default=0.01, metavar="A", help="chance to blame a clean log: 0.01")
    precision = "relative precision of logged probabilities (default: 1e-5)"
    parser.add_argument("--tolerance", type=float, default=1e-5, metavar="T", help=precision)
    parser.add_argument("--vocab", type=int, default=0, metavar="N", help="size of the vocabulary, for one test more")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON, and nothing else")


def run_audit_log(options: argparse.Namespace) -> int:
    """Print the verdict on a log; 0 consistent, 1 faulty, 2 inconclusive, 130 after an interrupt, all else as ever."""
    if not 0 < options.alpha < 1 or options.tolerance < 0 or options.vocab < 0:
        raise SubjectError("--alpha lies between 0 and 1, --tolerance and --vocab are not negative; mend the options")
    if options.workers is not None and options.workers < 1:
        raise SubjectError(f"--workers {options.workers} is no number of processes; give 1 or more")
    import torch

    torch.set_num_threads(1)
    from verify.logs.judge import judge
    from verify.logs.scan import scan
    from verify.logs.tally import Settings

    settings = Settings(options.rule == "token", options.tolerance, options.vocab)
    tally, interrupted = scan(options.file, settings, options.workers)
    verdict = judge(tally, options.file.name, options.alpha, settings, interrupted)
    if options.json:
        cells = {name: [row.tolist() for row in rows] for name, rows in _groups(tally)}
        whole = {**json.loads(verdict.to_json()), "cells": cells, "malformed": tally.malformed}
        print(json.dumps(whole, indent=2), flush=True)
    else:
        print(verdict, *_tested(verdict), *_table(tally), sep="\n", flush=True)
    return INTERRUPTED if interrupted else STATUS[verdict.status]


def _groups(tally: LogTally) -> list[tuple[str, Any]]:
    from verify.logs.tally import GROUPS

    return list(zip(GROUPS, tally.cells, strict=True))


def _tested(verdict: Verdict) -> list[str]:
    """Every test, those that reject with a mark."""
    lines = ["", f"  {'test':<46}{'found':>10}{'p-value':>10}"]
    for item in verdict.findings:
        mark = "!" if item.rejects else " "
        lines.append(f"{mark} {item.check[:45]:<46}{item.statistic:>10.4g}{item.p_value:>10.2g}  {item.note}".rstrip())
    return lines


def _table(tally: LogTally) -> list[str]:
    """Acceptances by what is expected of them, by position and over time."""
    from verify.logs.findings import cell_name
    from verify.logs.tally import GROUPS

    lines = ["", f"  {'':<34}{'records':>12}{'accepted':>10}{'expected':>10}{'excess':>9}"]
    for group, name in enumerate(GROUPS):
        lines.append(f"  by {name}")
        for place, (n, accepted, expected) in enumerate(tally.cells[group]):
            if n:
                shares = accepted / n, expected / n
                excess = shares[0] - shares[1]
                where = cell_name(group, place)
                known, sum_of_times = tally.times[place]
                time = f"   around {sum_of_times / known:.10g}" if name == "slices" and known else ""
                lines.append(f"    {where:<32}{n:>12,.0f}{shares[0]:>10.4f}{shares[1]:>10.4f}{excess:>+9.4f}{time}")
    return lines
