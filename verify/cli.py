"""The command line: ``specproof list | check | audit | campaign | study | report | train | decode | bench | audit-log |
claims | guide | doctor``.

Whatever imports torch is imported when a command runs, so that ``--help`` and wrong options answer at once.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import verify
from verify import commands
from verify.bench.command import add_options as add_bench_options
from verify.bench.command import run_bench
from verify.claims.command import add_options as add_claim_options
from verify.claims.command import run_claims
from verify.errors import SubjectError
from verify.imaging.command import add_options as add_decode_options
from verify.imaging.command import run_decode
from verify.logs.command import add_options as add_log_options
from verify.logs.command import run_audit_log

WRONG_CALL, INTERRUPTED = 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status.

    ``check``: 0 lossless, 1 lossy, 2 inconclusive. ``audit-log``: 0 consistent, 1 faulty, 2 inconclusive. ``audit``,
    ``campaign`` and ``doctor``: 0 if all is as expected, else 1. Always: 3 with one line on stderr where the call or
    the file is wrong, 130 after an interrupt.
    """
    try:
        options = _parser().parse_args(arguments)
        run: Callable[[argparse.Namespace], int] = options.run
        status = run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has left: the interpreter must not try to flush into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WRONG_CALL
    except (SubjectError, OSError) as error:
        return _complain(str(error))
    except ModuleNotFoundError as error:
        extra = _extra(str(error.name))
        if not extra:
            raise
        return _complain(f"this needs {error.name}, which is not installed; pip install 'specproof[{extra}]'")


def _extra(module: str) -> str:
    """The extra that brings a module, by the package's own metadata; empty if none does."""
    package = {"sklearn": "scikit-learn"}.get(module.partition(".")[0], module.partition(".")[0])
    wanted = re.compile(rf"{re.escape(package)}\b.*extra == ['\"](\w+)['\"]")
    found = filter(None, map(wanted.fullmatch, importlib.metadata.requires("specproof") or ()))
    return next((match[1] for match in found if match[1] != "dev"), "")


def _complain(message: str) -> int:
    print("specproof:", " ".join(message.split()), file=sys.stderr)
    return WRONG_CALL


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_complain(f"{message}; see {self.prog} --help"))


def _parser() -> argparse.ArgumentParser:
    about = "Decides whether a speculative sampler outputs exactly its target's distribution."
    parser = _Parser(prog="specproof", description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"specproof {verify.__version__}")
    choices = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        described = text[0].upper() + text[1:] + "."
        added = choices.add_parser(name, help=text, description=described, allow_abbrev=False)
        added.set_defaults(run=run)
        return added

    listing = command("list", commands.run_list, "list the built-in verifiers and what each claims")
    listed = listing.add_mutually_exclusive_group()
    listed.add_argument("--scenarios", action="store_true", help="list the pairs of models they are judged on instead")
    listed.add_argument("--saboteurs", action="store_true", help="list the planted defects instead")
    listed.add_argument(
        "--controls", action="store_true", help="list the lossless rules that were called lossy instead"
    )
    listed.add_argument("--upstream", action="store_true", help="list the adapters for other projects' code instead")

    check = command("check", commands.run_check, "judge a function: exit 0 lossless, 1 lossy, 2 inconclusive")
    judged = check.add_mutually_exclusive_group()
    judged.add_argument("subject", nargs="?", metavar="FILE.py::NAME", help="the function; NAME may be dotted")
    judged.add_argument("--upstream", metavar="NAME", help="or another project's; specproof list --upstream names them")
    check.add_argument("--source", type=Path, metavar="PATH", help="upstream: its checkout, or the one file")
    spaces = "default: discrete; upstream: decoder where there is one"
    check.add_argument("--space", choices=tuple(commands.OPTIONS), help=spaces)
    check.add_argument("--vocab", type=int, metavar="N", help="discrete, decoder: size of the vocabulary (default: 3)")
    check.add_argument("--draft-length", type=int, metavar="N", help="discrete: tokens drafted a round (default: 2)")
    check.add_argument("--length", type=int, metavar="N", help="decoder: tokens decoded (default: 4)")
    check.add_argument("--dim", type=int, metavar="D", help="gaussian: dimensions of a token (default: 1)")
    check.add_argument("--covariance", choices=("equal", "any"), help="gaussian: the pairs of laws (default: equal)")
    target = "sampler: a torch distribution, a law, or a function (rows, seed) that draws from it"
    check.add_argument("--target", metavar="FILE.py::NAME", help=target)
    check.add_argument("--epsilon", type=float, metavar="EPS", help="sampler: the bound that is enough (default: 0.01)")
    check.add_argument("--metric", metavar="NAME", help="sampler: what it bounds (default: ks; any: where smallest)")
    longer = "sampler, gaussian: draw until the bound is EPS, or the function convicted, or the time spent"
    check.add_argument("--until", type=float, metavar="EPS", help=longer)
    check.add_argument("--seconds", type=float, metavar="S", help="with --until: the time (default: 600)")
    check.add_argument("--budget", choices=("quick", "thorough"), default="quick", help="seconds, or minutes")
    check.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the problems (default: 0)")
    check.add_argument("--json", action="store_true", help="print the verdict as JSON, and nothing else")
    check.add_argument("--report", type=Path, metavar="PATH.html", help="write the verdict as a page as well")

    audit = command("audit", commands.run_audit, "judge the built-in verifiers, the planted defects and transformers")
    report = command("report", commands.run_report, "make the pages again from the verdicts of the last audit")
    for added in (audit, report):
        added.add_argument("--output", type=Path, default=Path("reports"), metavar="FOLDER", help="default: reports")
    campaign = command("campaign", commands.run_campaign, "judge every rule on every scenario, and go on after a kill")
    campaign.add_argument("--output", type=Path, required=True, metavar="FILE", help="findings, a line of JSON a cell")
    campaign.add_argument("--seeds", type=int, default=1, metavar="N", help="variants of each scenario (default: 1)")
    cores = os.cpu_count() or 1
    campaign.add_argument("--workers", type=int, default=cores, metavar="N", help="processes (default: one a core)")
    sizes = "vocabularies 2 and 3, or 5 too, and more rows"
    campaign.add_argument("--budget", choices=("quick", "thorough"), default="quick", help=sizes)
    campaign.add_argument("--only", nargs="+", metavar="NAME", help="as in the audit: block, saboteurs/cache_skip, ...")
    study = command("study", commands.run_study, "compute the tables and figures of one study, or of all of them")
    study.add_argument("name", nargs="?", help="default: all; an unknown name lists them")
    study.add_argument(
        "--budget", choices=("quick", "thorough"), default="quick", help="a minute each, or as long as it takes"
    )
    study.add_argument(
        "--output", type=Path, default=Path("reports/studies"), metavar="FOLDER", help="default: reports/studies"
    )
    train = command("train", commands.run_train, "train again what ships: heads, image models; all, or one by name")
    train.add_argument("name", nargs="?", help="default: all; an unknown name lists them")
    train.add_argument("--predicts", choices=("noise", "velocity"), default="noise", help="default: noise")
    train.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    train.add_argument("--output", type=Path, default=Path("weights"), metavar="FOLDER", help="default: weights")
    add_decode_options(command("decode", run_decode, "decode images with a model that ships, by any rule on paths"))
    add_bench_options(command("bench", run_bench, "measure what decoding costs on a device, and what that allows"))
    logs = command("audit-log", run_audit_log, "judge a log: exit 0 consistent, 1 faulty, 2 inconclusive")
    add_log_options(logs)
    add_claim_options(command("claims", run_claims, "hold published speed-ups against what acceptance allows"))
    guide = command("guide", commands.run_guide, "how to add a verifier, a law, a check or an adapter, by example")
    guide.add_argument("name", nargs="?", help="default: list them")
    command("doctor", commands.run_doctor, "show where the packages are imported from, and which versions")
    return parser
