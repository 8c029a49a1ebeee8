"""The command line: exit statuses, one-line complaints, clean JSON, and the files it loads."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from verify.cli import main
from verify.errors import SubjectError
from verify.loader import load
from verify.records import Claim, Counterexample, Finding, Verdict

SUBJECTS = """
import os, subprocess, sys
import torch

print("loading")

def _verify(draft_tokens, draft_probs, target_probs, residual):
    out = []
    for i, token in enumerate(draft_tokens.tolist()):
        if torch.rand(()) < target_probs[i, token] / draft_probs[i, token]:
            out.append(token)
            continue
        law = (target_probs[i] - draft_probs[i]).clamp(min=0) if residual else target_probs[i]
        return out + [int(torch.multinomial(law, 1))]
    return out + [int(torch.multinomial(target_probs[-1], 1))]

calls = 0

def right(draft_tokens, draft_probs, target_probs):
    global calls
    calls += 1
    if calls == 1:
        print("to sys.stdout, which the judge may silence")
        print("to the original stdout", file=sys.__stdout__)
        os.write(1, b"to the descriptor\\n")
    return _verify(draft_tokens, draft_probs, target_probs, True)

def wrong(draft_tokens, draft_probs, target_probs):
    return _verify(draft_tokens, draft_probs, target_probs, False)

def leaves(*_):
    sys.exit(0)

def fails(*_):
    raise OSError("the disk\\nis full")

class Sampler:
    def __init__(self, name="made without arguments"):
        self.name = name
    def method(self, *_):
        return self.name
    @staticmethod
    def static(*_):
        return "static"
    @classmethod
    def of_class(cls, *_):
        return cls.__name__
    def __call__(self, *_):
        return "called " + self.name

class Needy:
    def __init__(self, weights):
        self.weights = weights
    def method(self, *_):
        return self.weights

one = Sampler("one")
number = 3
"""
QUICK = ["--vocab", "2", "--draft-length", "1"]


@pytest.fixture(autouse=True)
def import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``load`` leaves on the path stays in the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "subjects.py").write_text(SUBJECTS)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "subjects.py"


def verdict(status: str, **options: Any) -> Verdict:
    bias = 0.0 if status == "lossless" else 0.25
    return Verdict(status, bias, bias, "tv", "exact", 1.0, acceptance=0.6, overlap=0.5, **options)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.SimpleNamespace]:
    """A judge that says what it is told to, and remembers what it was asked."""
    told = types.SimpleNamespace(answer=verdict("lossless"), asked=[], raises=None)

    def ask(kind: str) -> Callable[..., Verdict]:
        def answer(function: Any, **options: Any) -> Verdict:
            told.asked.append((kind, options))
            if told.raises is not None:
                raise told.raises
            return told.answer

        return answer

    fake = types.SimpleNamespace(check_verifier=ask("verifier"), check_decoder=ask("decoder"))
    monkeypatch.setitem(sys.modules, "verify.judge", fake)
    yield told


def specproof(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "verify", *arguments], capture_output=True, text=True, **options)


# --- statuses and output


@pytest.mark.parametrize(("status", "code"), [("lossless", 0), ("lossy", 1), ("inconclusive", 2)])
def test_the_exit_status_is_the_verdicts(status: str, code: int, file: Path, judge: Any, capfd: Any) -> None:
    judge.answer = verdict(status)
    assert main(["check", "subjects.py::right"]) == code
    assert capfd.readouterr().out.startswith(f"{status} [exact] subjects.py::right: bias ")


def test_a_correct_function_is_lossless_and_json_is_all_that_is_printed(file: Path) -> None:
    """Whatever the stranger's file prints, by whichever way, goes to stderr."""
    done = specproof("check", "subjects.py::right", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["status"] == "lossless" and found["evidence"] == "exact" and found["bias_upper"] < 1e-12
    assert found["subject"] == "subjects.py::right"
    for line in ("loading", "to the original stdout", "to the descriptor"):
        assert line in done.stderr.splitlines()


def test_a_wrong_function_is_lossy_and_its_counterexample_runs(file: Path, capfd: Any) -> None:
    assert main(["check", "subjects.py::wrong", "--json", *QUICK]) == 1
    found = json.loads(capfd.readouterr().out)
    # Redrawing from the target after a rejection: the overlap's share of every rejection goes astray.
    assert found["bias_lower"] > 0.01
    exec(compile(found["counterexample"]["snippet"], "snippet", "exec"), {})
    assert float(capfd.readouterr().out.split()[-1]) == pytest.approx(found["counterexample"]["bias"], abs=1e-9)


@pytest.mark.parametrize(
    ("words", "kind", "asked"),
    [
        ([], "verifier", {"space": "discrete"}),
        (["--vocab", "4", "--draft-length", "1"], "verifier", {"space": "discrete", "vocab": 4, "draft_length": 1}),
        (
            ["--space", "gaussian", "--dim", "2", "--covariance", "any"],
            "verifier",
            {"space": "gaussian", "dim": 2, "covariance": "any"},
        ),
        (["--space", "decoder", "--length", "5"], "decoder", {"length": 5}),
        (["--budget", "thorough", "--seed", "7"], "verifier", {"space": "discrete", "budget": "thorough", "seed": 7}),
    ],
)
def test_options_reach_the_judge(words: list[str], kind: str, asked: dict[str, Any], file: Path, judge: Any) -> None:
    assert main(["check", "subjects.py::right", *words]) == 0
    assert judge.asked == [(kind, {"budget": "quick", "seed": 0} | asked)]


def test_a_report_is_written_with_the_command_that_made_it(file: Path, judge: Any, tmp_path: Path) -> None:
    case = Counterexample(0.25, "print(fn)", found={"0": 1.0}, wanted={"0": 0.5})
    judge.answer = verdict("lossy", counterexample=case)
    page = tmp_path / "deep" / "page.html"
    assert main(["check", "subjects.py::right", "--vocab", "4", "--report", str(page)]) == 1
    text = page.read_text()
    assert "specproof check subjects.py::right --space discrete --vocab 4 --budget quick --seed 0" in text
    assert "subjects.py::right is lossy" in text


def test_an_interrupt_is_quiet(file: Path, judge: Any, capfd: Any) -> None:
    judge.raises = KeyboardInterrupt()
    assert main(["check", "subjects.py::right"]) == 130
    assert capfd.readouterr().err == "loading\n"


def test_help_and_wrong_options_do_not_wait_for_torch() -> None:
    code = (
        "import sys\nfrom verify.cli import main\n"
        "for words in (['--help'], ['check', '--help'], ['check', 'x.py::f', '--space', 'moon']):\n"
        "    try:\n        main(words)\n    except SystemExit as error:\n        print(error.code)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == ["3", "False"] and done.stdout.count("\n0\n") == 2


def test_a_reader_that_leaves_early_causes_no_traceback() -> None:
    line = f"{sys.executable} -m verify list --scenarios | head -n 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("scenario") and done.stderr == ""


# --- complaints: status 3 and one line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["check", "absent.py::right"], "there is no file 'absent.py'"),
        (["check", "subjects.py"], "write FILE.py::NAME"),
        (["check", "::right"], "write FILE.py::NAME"),
        (["check", "notes.txt::right"], "ends in .py"),
        (["check", "quiet.py::rigth"], "did you mean 'right'?"),
        (["check", "quiet.py::right.inner"], "has no 'right.inner'"),
        (["check", "empty.py::right"], "it defines no function"),
        (["check", "quiet.py::number"], "is an int, not a function"),
        (["check", "quiet.py::Plain"], "is a class; name one of its methods"),
        (["check", "quiet.py::Needy.method"], "make one in the file"),
        (["check", "imports.py::right"], "ModuleNotFoundError: No module named 'absent_module' (line 2)"),
        (["check", "syntax.py::right"], "SyntaxError"),
        (["check", "leaves.py::right"], "exits while it is imported"),
        (["check", "quiet.py::leaves"], "sys.exit()"),
        (["check", "quiet.py::right", "--vocab", "1"], "vocab is 1"),
        (["check", "quiet.py::right", "--dim", "2"], "--dim has no meaning with --space discrete"),
        (["check", "quiet.py::right", "--space", "moon"], "invalid choice: 'moon'"),
        (["check", "quiet.py::right", "--vocab", "two"], "invalid int value: 'two'"),
        (["check", "quiet.py::right", "--budget", "huge"], "invalid choice: 'huge'"),
        (["check"], "required: FILE.py::NAME"),
        (["judge"], "invalid choice: 'judge'"),
        ([], "required: COMMAND"),
        (["report", "--output", "absent"], "run specproof audit first"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_3(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    files = {
        "notes.txt": "",
        "empty.py": "",
        "quiet.py": "import sys\n"
        "def right(a, b, c):\n    return [0]\n"
        "def leaves(a, b, c):\n    sys.exit(0)\n"
        "class Plain:\n    pass\n"
        "class Needy:\n    def __init__(self, weights): pass\n    def method(self, a, b, c): return [0]\n"
        "number = 3\n",
        "imports.py": "import os\nimport absent_module\n",
        "syntax.py": "def right(:\n",
        "leaves.py": "import sys\nsys.exit(0)\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    try:
        status = main(words)
    except SystemExit as error:
        status = int(error.code or 0)
    output = capfd.readouterr()
    assert status == 3
    assert output.out == ""
    assert output.err.startswith("specproof: ") and output.err.count("\n") == 1
    assert says in output.err


def test_what_a_function_or_the_judge_raises_is_no_verdict(file: Path, judge: Any, capfd: Any) -> None:
    """Python exits with 1 after a traceback, which would read as `lossy`."""
    judge.raises = ZeroDivisionError("a\nb")
    assert main(["check", "subjects.py::right"]) == 3
    assert capfd.readouterr().err.splitlines()[1:] == [
        "specproof: no verdict: ZeroDivisionError: a b; SPECPROOF_DEBUG=1 shows where from"
    ]


def test_a_function_that_raises_is_reported_with_its_own_words(file: Path, capfd: Any) -> None:
    assert main(["check", "subjects.py::fails", *QUICK]) == 3
    (line,) = capfd.readouterr().err.splitlines()[1:]
    assert "OSError" in line and "the disk is full" in line


# --- loading


@pytest.mark.parametrize(
    ("name", "returns"),
    [
        ("Sampler.method", "made without arguments"),
        ("Sampler.static", "static"),
        ("Sampler.of_class", "Sampler"),
        ("Sampler", "called made without arguments"),
        ("one.method", "one"),
        ("one", "called one"),
    ],
)
def test_names_may_be_dotted(name: str, returns: str, file: Path) -> None:
    assert load(f"subjects.py::{name}")() == returns


def test_neighbours_are_importable_relatively_or_not_and_also_later(tmp_path: Path) -> None:
    (tmp_path / "near_helper.py").write_text("answer = 42\n")
    (tmp_path / "late_helper.py").write_text("answer = 43\n")
    (tmp_path / "subject.py").write_text(
        "from .near_helper import answer\nimport near_helper\n"
        "def early(): return answer + near_helper.answer\n"
        "def late():\n    import late_helper\n    return late_helper.answer\n"
    )
    assert load(f"{tmp_path / 'subject.py'}::early")() == 84
    assert load(f"{tmp_path / 'subject.py'}::late")() == 43


def test_a_file_of_a_package_is_loaded_as_its_member(tmp_path: Path) -> None:
    inner = tmp_path / "outer_package" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "outer_package" / "__init__.py").write_text("answer = 42\n")
    (inner / "__init__.py").write_text("")
    (inner / "subject.py").write_text("from .. import answer\ndef ask(): return answer, __name__\n")
    assert load(f"{inner / 'subject.py'}::ask")() == (42, "outer_package.inner.subject")


def test_a_file_that_bears_a_librarys_name_does_not_replace_it(tmp_path: Path) -> None:
    import torch

    (tmp_path / "torch.py").write_text("def ask(): return __name__\n")
    assert load(f"{tmp_path / 'torch.py'}::ask")().endswith(".torch")
    assert sys.modules["torch"] is torch


def test_an_edit_within_the_same_second_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "subject.py"
    for answer in (1, 2):
        path.write_text(f"def ask(): return {answer}\n")
        os.utime(path, (1_000_000_000, 1_000_000_000))
        assert load(f"{path}::ask")() == answer


def test_a_failed_load_leaves_the_path_alone(file: Path) -> None:
    before = list(sys.path)
    with pytest.raises(SubjectError):
        load("subjects.py::absent")
    assert sys.path == before


@pytest.mark.parametrize("name", ["passed_on", "Sampler", "sampler"])
def test_draws_at_import_deny_the_verdict_lossless(name: str, tmp_path: Path, capfd: Any) -> None:
    """Another import is another function, and no enumeration of calls can see that; also through a neighbour."""
    (tmp_path / "frozen_helper.py").write_text(
        "import torch\nU = torch.rand(())\ndef passed_on(a, b, c):\n    return [int(torch.multinomial(c[0], 1))]\n"
    )
    (tmp_path / "subject.py").write_text(
        "from frozen_helper import passed_on\n"
        "class Sampler:\n    def __call__(self, a, b, c): return passed_on(a, b, c)\n"
        "sampler = Sampler()\n"
    )
    sys.modules.pop("frozen_helper", None)  # so that each case imports it, and draws
    assert main(["check", f"{tmp_path / 'subject.py'}::{name}", *QUICK]) == 2
    assert "at import" in capfd.readouterr().out


# --- list, audit, report, doctor


def test_list_names_every_entry_with_its_claim(capsys: Any) -> None:
    from verify.verifier import catalog

    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *catalog()]
    for name, kind in catalog().items():
        (line,) = (line for line in lines if line.split()[0] == name)
        assert ("exact" if kind.claim.exact else "lossy") in line.split() and kind.claim.reference in line


def test_list_names_the_scenarios_and_the_saboteurs(capsys: Any) -> None:
    from verify.scenarios import scenarios
    from verify.verifier import catalog

    listed = {"--scenarios": scenarios(), "--saboteurs": catalog("saboteurs"), "--controls": catalog("controls")}
    for flag, names in listed.items():
        assert main(["list", flag]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == list(names)


class _Kind:
    def __init__(self, exact: bool, laws: str = "any") -> None:
        self.claim = Claim(exact, "a reference", laws=laws)

    def __call__(self) -> _Kind:
        return self


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An audit of two made-up verifiers, one of which cannot be enumerated, one saboteur, and no transformers."""
    told: dict[str, Any] = {"good": "lossless", "smooth": "lossless", "saboteurs/bad": "lossy", "upstream": []}
    folders = {
        "verifiers": {"good": _Kind(True), "smooth": _Kind(True, "gaussian")},
        "saboteurs": {"bad": _Kind(False)},
        "controls": {},
    }

    def audit(verifiers: dict[str, Any], cases: Any, executor: Any, findings: Path) -> list[Verdict]:
        (name,) = verifiers
        finding = Finding(name, "a scenario", "enumeration", 0.0, None, 0.0, 1, 0)
        with findings.open("a") as file:
            file.write(json.dumps({"verifier": name}) + "\n")
        if isinstance(told[name], BaseException):
            raise told[name]
        return [verdict(told[name], subject=name, seconds=1.5, findings=(finding,))]

    def upstream() -> list[Verdict]:
        if isinstance(told["upstream"], ImportError):
            raise told["upstream"]
        return told["upstream"]

    monkeypatch.setattr("verify.verifier.catalog", lambda folder="verifiers": folders[folder])

    def judged(name: str, verifier: Any) -> Verdict:
        finding = Finding(name, "", "ks", 0.0, 1.0, 0.0, 1, 0)
        return verdict(told[name], subject=name, findings=(finding,))

    monkeypatch.setattr("verify.audit.audit", audit)
    monkeypatch.setattr("verify.spaces.continuous.judged", judged)
    monkeypatch.setattr("verify.workers.Processes", lambda: ThreadPoolExecutor(1))  # which need not send these classes
    monkeypatch.setitem(sys.modules, "verify.upstream.transformers", types.SimpleNamespace(audit_transformers=upstream))
    return told


def test_an_audit_that_finds_what_is_claimed_succeeds(audited: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    audited["upstream"] = [verdict("lossy", subject="theirs", expected="lossy")]
    assert main(["audit", "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "every verdict is as claimed" in out and "skipped" not in out
    data = json.loads((tmp_path / "out" / "verdicts.json").read_text())
    names = [row["subject"] for row in data["results"]]
    assert data["success"] and names == ["good", "smooth", "saboteurs/bad", "theirs"]
    assert (tmp_path / "out" / "index.html").is_file() and (tmp_path / "out" / "index.md").is_file()


@pytest.mark.parametrize(
    ("name", "status"),
    [("good", "lossy"), ("good", "inconclusive"), ("smooth", "inconclusive"), ("saboteurs/bad", "lossless")],
)
def test_an_audit_that_finds_otherwise_fails(
    name: str, status: str, audited: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    audited[name] = status
    assert main(["audit", "--output", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert any(line.startswith("! " + status) and name in line for line in out.splitlines())
    assert f"1 of 3 verdicts are not as claimed or expected: {name}." in out


def test_an_audit_without_transformers_says_so(audited: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    audited["upstream"] = ImportError("No module named 'transformers'")
    assert main(["audit", "--output", str(tmp_path)]) == 0
    assert "skipped: transformers: No module named 'transformers'" in capsys.readouterr().out
    assert "pip install" in (tmp_path / "index.md").read_text()


def test_an_interrupted_audit_keeps_its_findings(audited: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "findings.jsonl").write_text("of an earlier run\n")
    audited["saboteurs/bad"] = KeyboardInterrupt()
    assert main(["audit", "--output", str(tmp_path)]) == 130
    rows = [json.loads(line) for line in (tmp_path / "findings.jsonl").read_text().splitlines()]
    assert [row["verifier"] for row in rows] == ["good", "saboteurs/bad"]  # the enumerated ones come first
    assert "interrupted: what was found until then is in" in capsys.readouterr().err


def test_report_makes_the_same_pages_again(audited: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    main(["audit", "--output", str(tmp_path)])
    names = ("verdicts.json", "index.html", "index.md", "figures/excess.svg")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    for name in names[1:]:
        (tmp_path / name).unlink()
    assert main(["report", "--output", str(tmp_path)]) == 0
    assert {name: (tmp_path / name).read_bytes() for name in names} == before


@pytest.mark.parametrize(
    ("module", "extra"), [("mlxtend.data", "train"), ("sklearn.datasets", "train"), ("pyarrow", "logs"), ("json", "")]
)
def test_what_is_not_installed_is_named(
    module: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    def needs(_: Any) -> int:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr("verify.cli.run_decode", needs)
    call = ["decode", "--model", "mnist.causal", "--verifier", "coalescing"]
    if not extra:  # a defect of ours, and no wrong call
        with pytest.raises(ModuleNotFoundError):
            main(call)
        return
    assert main(call) == 3
    assert capsys.readouterr().err.endswith(f"{module}, which is not installed; pip install 'specproof[{extra}]'\n")


def test_doctor_shows_the_origins(capsys: Any) -> None:
    import distributions
    import verify

    assert main(["doctor"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    for package in (verify, distributions):
        assert str(Path(str(package.__file__)).resolve()) in output.out
    assert "torch" in output.out and "scipy" in output.out


def test_doctor_warns_of_a_stranger(tmp_path: Path) -> None:
    """An unrelated package called `distributions` that comes first on the path."""
    (tmp_path / "distributions.py").write_text("")
    done = specproof("doctor", env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    assert done.returncode == 1 and "warning: distributions does not come from" in done.stderr


# --- progress


class _Stderr(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(
    ("terminal", "slow", "shown"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_bar_appears_at_a_terminal_only_and_not_at_once(
    terminal: bool, slow: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verify import progress

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", _Stderr(terminal))
    monkeypatch.setattr(progress, "DELAY", 0.05)
    seen = []
    for item in progress.track(range(3), label="a label"):
        seen.append(item)
        time.sleep(0.1 if slow else 0.0)
    assert seen == [0, 1, 2]
    assert ("a label" in sys.stderr.getvalue()) == shown  # type: ignore[attr-defined]


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    from verify import progress

    now = iter([0.0, 59.0, 61.0, 100.0, 600.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(now))
    monkeypatch.setattr(sys, "stderr", _Stderr(False))
    assert list(progress.track(range(4), label="judging")) == [0, 1, 2, 3]
    said = sys.stderr.getvalue().splitlines()  # type: ignore[attr-defined]
    assert said == ["judging: 2 of 4 after 1 min", "judging: 4 of 4 after 10 min"]


def test_a_loop_that_is_left_takes_its_bar_along(monkeypatch: pytest.MonkeyPatch) -> None:
    from verify import progress

    monkeypatch.setattr(sys, "stderr", _Stderr(True))
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        for _ in progress.track(range(3)):
            raise ZeroDivisionError
    gc.collect()
    assert threading.active_count() == before
