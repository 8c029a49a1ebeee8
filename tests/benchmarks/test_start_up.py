"""The command line from end to end.

`specproof check FILE.py::NAME` in a process of its own against a process that only imports torch. The verdict's own
seconds are those that the command reports; what is left is start-up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

import verify
from tests.benchmarks.report import Section, Versus
from tests.benchmarks.subjects import correct, lenient

ROOT = Path(verify.__file__).parents[1]
SUBJECTS = Path(__file__).with_name("subjects.py")


def python(*words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(("name", "status"), [(correct.__name__, 0), (lenient.__name__, 1)])
def test_check(name: str, status: int, versus: Versus, section: Section) -> None:
    verdict_seconds = []

    def check() -> None:
        done = python("-m", "verify", "check", f"{SUBJECTS}::{name}", "--json")
        assert done.returncode == status, done.stderr
        verdict = json.loads(done.stdout)
        assert verdict["status"] == ("lossless", "lossy")[status] and verdict["evidence"] == "exact"
        verdict_seconds.append(verdict["seconds"])

    run = versus(check, lambda: python("-c", "import torch"), turns=3)
    assert run.reference_result.returncode == 0
    start_up = run.seconds - median(verdict_seconds)
    section.row(
        command=f"check subjects.py::{name}",
        end_to_end_over_importing_torch=run.ratio,
        start_up_over_importing_torch=start_up / run.reference_seconds,
        end_to_end_seconds=run.seconds,
        verdict_seconds=median(verdict_seconds),
        import_torch_seconds=run.reference_seconds,
    )


def test_help_does_not_wait_for_torch(versus: Versus, section: Section) -> None:
    run = versus(lambda: python("-m", "verify", "--help"), lambda: python("-c", "import torch"), turns=3)
    assert run.result.returncode == 0 and "check" in run.result.stdout
    section.say(f"`specproof --help` takes {run.ratio:.2f} of the time of importing torch.")
