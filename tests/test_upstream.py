"""Adapters for other projects' samplers, on look-alikes written here, and on checkouts where there are any.

SPECPROOF_UPSTREAM names a folder in which NAME is a checkout of the project that the adapter NAME is for.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from verify.cli import main
from verify.errors import SubjectError
from verify.foreign.interpose import Room
from verify.problems import pool
from verify.records import Verdict
from verify.spaces.decoder import DecodedLaw, decoded_law, pairs
from verify.spaces.discrete import law_of
from verify.upstream import SPACES, rows, spaces, subject, upstreams
from verify.upstream.lift import lift

torch.set_num_threads(1)

HERE = Path(__file__).parent
LOOKALIKES = HERE / "lookalikes"
LOSSY = {("scd", "decoder"), ("medusa", "discrete")}
KINDS = [(name, space) for name in upstreams() for space in spaces(name)]
LABEL = "scores[row, place - 1] = before"  # what SJD's sampler does with a kept draft, and SCD's should not
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)
WINDOWED = {"scd", "sjd"}  # a window of three needs three tokens


def bias(fn: Callable[..., Any], space: str, length: int = 2) -> float:
    """The largest bias over a few small problems, exactly enumerated."""
    with Room(fn) as room:
        if space == "decoder":  # random, with zeros, and reversed
            laws: list[Any] = [decoded_law(fn, pairs(2, length)[place], room) for place in (0, 2, 4)]
        else:  # random, peaked, with zeros, and disjoint supports
            laws = [law_of(fn, pool(2, length)[place], room) for place in (0, 1, 4, 11)]
    assert not room.escapes and all(law.slack < 1e-12 for law in laws)
    return max(law.bias for law in laws)


def edited(name: str, folder: Path, old: str, new: str) -> Path:
    """A copy of a look-alike with one passage replaced, and its neighbours beside it."""
    text = (LOOKALIKES / f"{name}.py").read_text()
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
    shutil.copytree(LOOKALIKES, folder, dirs_exist_ok=True)
    (folder / f"{name}.py").write_text(text.replace(old, new))
    return folder / f"{name}.py"


# --- the folder


def test_the_folder_is_the_list() -> None:
    files = {path.stem: path for path in (HERE.parent / "verify" / "upstream").glob("*.py")}
    assert set(upstreams()) == {stem for stem, path in files.items() if "\nNEEDS = " in path.read_text()}
    assert set(upstreams()) == {"eagle", "gpt_fast", "lucidrains", "medusa", "scd", "sjd", "vllm"}
    for name, adapter in upstreams().items():
        assert adapter.PROJECT.count("/") == 1 and any(mark.isdigit() for mark in adapter.READ)
        assert spaces(name) and (LOOKALIKES / f"{name}.py").is_file()
        documentation = " ".join((adapter.__doc__ or "").split())
        assert "Expected:" in documentation and "To avoid:" in documentation
        tree = ast.parse(files[name].read_text())
        documented = (node for node in ast.walk(tree) if isinstance(node, DOCUMENTED) and ast.get_docstring(node))
        prose = {line for node in documented for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)}
        code = [line for line, text in enumerate(files[name].read_text().splitlines(), 1) if text.strip()]
        assert len(set(code) - prose) < 40, f"{name} has {len(set(code) - prose)} lines of code"


# --- every adapter runs what it is given, and only that


@pytest.mark.parametrize(("name", "space"), [kind for kind in KINDS if kind not in LOSSY])
def test_a_correct_lookalike_is_lossless(name: str, space: str) -> None:
    assert bias(subject(name, LOOKALIKES / f"{name}.py", space), space, 3 if name in WINDOWED else 2) < 1e-12


@pytest.mark.parametrize(
    ("name", "space", "old", "new"),
    [
        ("eagle", "discrete", "<= law[token]", "<= law[token] ** 0.5"),
        ("eagle", "decoder", "law[token] = 0", "pass"),
        ("gpt_fast", "decoder", "race((wanted[step] - laws[step]).clamp(min=0))", "race(wanted[step])"),
        ("lucidrains", "decoder", "(target[place] - small[place]).relu()", "(target[place] - small[place]).abs()"),
        ("sjd", "discrete", "left = (now - before).clamp(min=0)", "left = now"),
        ("sjd", "decoder", "                    break\n", ""),
        ("scd", "discrete", "left = (now - before).clamp(min=0)", "left = now"),
        ("vllm", "discrete", "clamp(min=torch.finfo(torch.float32).tiny)", "clamp(min=0.01)"),
    ],
)
def test_a_planted_defect_is_seen_through_the_adapter(
    name: str, space: str, old: str, new: str, tmp_path: Path
) -> None:
    assert bias(subject(name, edited(name, tmp_path, old, new), space), space, 3 if name in WINDOWED else 2) > 1e-3


def test_the_stale_label_has_its_closed_form(tmp_path: Path) -> None:
    """Two tokens, three columns, a window of three, all columns entering as a repeat of token 0, labelled with it.

    Let y1 = 1, so that the first draft was rejected. The second column holds x2 ~ p(.|0): kept, it is 0 and has still
    the label of the point mass; redrawn, it is 1 and has the label p(.|0). Verified against p(.|1) with a = p(0|0),
    t = p(1|1), token 1 comes out with probability a t + min(1 - a, t) in place of t. Everything else is exact.
    """
    pair = pairs(2, 3)[0]
    first, then, a, t = (
        float(pair.target(prefix)[token]) for prefix, token in (((), 1), ((1,), 1), ((0,), 0), ((1,), 1))
    )
    assert then == t
    wrong = a * t + min(1 - a, t)

    def law(source: Path) -> DecodedLaw:
        fn = subject("scd", source, "decoder")
        with Room(fn) as room:
            return decoded_law(fn, pair, room)

    found = law(LOOKALIKES / "scd.py")
    reached = sum(mass for tokens, mass in found.law.items() if tokens[0] == 1)
    assert reached == pytest.approx(first, abs=1e-14)
    assert sum(mass for tokens, mass in found.law.items() if tokens[:2] == (1, 1)) == pytest.approx(
        first * wrong, abs=1e-14
    )
    assert found.bias == pytest.approx(first * abs(wrong - t), abs=1e-14) and found.bias > 0.1
    assert law(edited("scd", tmp_path, LABEL, "pass")).bias < 1e-12  # relabelled: exact
    assert LABEL in (LOOKALIKES / "sjd.py").read_text()  # where it does no harm: SJD's look-alike is lossless above


def test_medusa_accepts_what_is_typical_and_draws_nothing() -> None:
    """One draft x is kept iff p(x) > min(0.3, 0.09 exp(-H(p))), and the most probable token follows."""
    fn = subject("medusa", LOOKALIKES / "medusa.py")
    kept = 0
    with Room(fn) as room:
        for problem in pool(3, 1)[:10]:
            found = law_of(fn, problem, room)
            wanted: dict[tuple[int, ...], float] = {}
            for (token,), chance in problem.drafts():
                law = problem.target[0][0]
                least = min(0.3, 0.09 * float(torch.exp(torch.xlogy(law, law).sum())))
                accepted = float(law[token]) > least
                kept += accepted
                tokens = (token, int(problem.target[1][token].argmax())) if accepted else (int(law.argmax()),)
                wanted[tokens] = wanted.get(tokens, 0.0) + chance
            assert found.emitted == pytest.approx(wanted, abs=1e-14) and found.leaves == len(list(problem.drafts()))
    assert 0 < kept < 30


# --- lifting


def lifted(tmp_path: Path, text: str, *names: str, **given: Any) -> Any:
    (tmp_path / "theirs.py").write_text(text)
    return lift(tmp_path / "theirs.py", *names, **given)


def test_only_what_is_referred_to_runs(tmp_path: Path) -> None:
    module = lifted(
        tmp_path,
        "import absent_package\nfrom absent_package import Thing, other\nimport math, absent_too\n"
        "raise RuntimeError('the body ran')\n"
        "SCALE = math.sqrt(4.0)\nWASTE = absent_package.waste()\n"
        "def _helper(x: Thing) -> absent_package.Result: return SCALE * x\n"
        "def _helper(x: Thing): return 10 * SCALE * x\n"
        "class Base:\n    factor = SCALE\n"
        "class Derived(Base):\n    def call(self, x): return [_helper(x) for _ in range(2)]\n"
        "def unused(): return other()\n",
        "Derived",
    )
    assert module.Derived().call(1.5) == [30.0, 30.0] and module.Derived.factor == 2.0
    assert not {"WASTE", "unused", "Thing", "absent_package"} & set(vars(module))


def test_what_is_given_replaces_the_files_own(tmp_path: Path) -> None:
    text = "from absent_package import Base\ndef helper(): return 1\n"
    text += "class Derived(Base):\n    def call(self): return helper()\n"
    module = lifted(tmp_path, text, "Derived", Base=dict, helper=lambda: 2)
    assert module.Derived(a=1)["a"] == 1 and module.Derived().call() == 2


def test_compilers_are_left_off_and_other_decorators_stay(tmp_path: Path) -> None:
    text = (
        "import torch\nimport functools\nimport torch._dynamo.config\n"
        "@torch.jit.script\ndef one(x: torch.Tensor): return x + 1\n"
        "@torch.compile(dynamic=True)\n@functools.cache\ndef two(x): return object()\n"
        "class Three:\n    @torch.jit.script\n    def call(self, x): return one(x)\n"
    )
    module = lifted(tmp_path, text, "two", "Three")
    assert type(module.one).__name__ == "function" and module.Three().call(1) == 2
    assert module.two(1) is module.two(1)


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    module = lifted(tmp_path, "\n\n\ndef fails():\n    return 1 / 0\n", "fails")
    with pytest.raises(ZeroDivisionError) as caught:
        module.fails()
    assert caught.traceback[-1].path == tmp_path / "theirs.py" and caught.traceback[-1].lineno + 1 == 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def other(): ...\n", "does not define 'wanted'; check out the commit"),
        ("from absent_package import f\ndef wanted(): return f()\n", "No module named 'absent_package' (line 1)"),
        ("def wanted(:\n", "cannot be read: SyntaxError"),
        ("import torch\ndef wanted(noise=torch.rand(3)): return noise\n", "at import"),
        ("A = 1 / 0\ndef wanted(): return A\n", "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_what_cannot_be_lifted_is_one_sentence(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match=".*") as caught:
        lifted(tmp_path, text, "wanted")
    assert says in str(caught.value) and "\n" not in str(caught.value)


# --- the command line


def test_the_adapters_are_listed_with_what_they_need(capsys: Any) -> None:
    assert main(["list", "--upstream"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows()) == 1 + sum(len(adapter.NEEDS) for adapter in upstreams().values())
    for name, adapter in upstreams().items():
        mine = [line for line in lines[1:] if line.split()[0] == name]
        for line, (file, names) in zip(mine, adapter.NEEDS.items(), strict=True):
            assert all(word in line for word in (adapter.PROJECT, file, *names, *spaces(name)))


def test_a_checkout_is_judged(tmp_path: Path, capfd: Any) -> None:
    (file,) = upstreams()["sjd"].NEEDS
    (tmp_path / file).parent.mkdir(parents=True)
    shutil.copy(LOOKALIKES / "sjd.py", tmp_path / file)
    words = ["check", "--upstream", "sjd", "--source", str(tmp_path), "--vocab", "2", "--length", "2"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["status"] == "lossless" and found["evidence"] == "exact"
    assert found["subject"] == "tyshiwo1/Accelerating-T2I-AR-with-SJD SpeculativeSampler"
    assert any("run verbatim" in note and "sha256" in note and "b389cfb" in note for note in found["notes"])


@pytest.mark.slow  # naming the defect is what takes the time
def test_a_counterexample_runs(capfd: Any) -> None:
    source = LOOKALIKES / "scd.py"
    assert main(["check", "--upstream", "scd", "--source", str(source), "--vocab", "2", "--length", "3", "--json"]) == 1
    found = json.loads(capfd.readouterr().out)
    assert found["evidence"] == "exact" and found["bias_lower"] > 0.1
    exec(compile(found["counterexample"]["snippet"], "snippet", "exec"), {})
    assert float(capfd.readouterr().out.split()[-1]) == pytest.approx(found["counterexample"]["bias"], abs=1e-9)


def test_a_page_says_which_command_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verdict("lossy", 0.25, 0.25, "tv", "exact", 1.0)
    monkeypatch.setattr("verify.judge.check_decoder", lambda fn, **options: verdict)
    page, source = tmp_path / "page.html", LOOKALIKES / "scd.py"
    assert main(["check", "--upstream", "scd", "--source", str(source), "--report", str(page)]) == 1
    assert f"specproof check --upstream scd --source {source} --space decoder --budget quick" in page.read_text()


def test_a_file_of_two_is_found_beside_the_other_and_in_the_checkout(tmp_path: Path) -> None:
    adapter = upstreams()["vllm"]
    for file, name in zip(adapter.NEEDS, ("spec_decode_base_sampler.py", "vllm.py"), strict=True):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(LOOKALIKES / name, tmp_path / file)
    (_, last) = adapter.NEEDS
    for source in (tmp_path, tmp_path / last):
        assert callable(subject("vllm", source))
    (tmp_path / last).parent.joinpath("spec_decode_base_sampler.py").unlink()
    with pytest.raises(SubjectError, match="there is no file .*spec_decode_base_sampler.py"):
        subject("vllm", tmp_path / last)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--upstream", "scd"], "needs --source PATH, a checkout of junhyukso/SCD"),
        (["--upstream", "scd", "--source", "absent"], "SCDMC.py'; point --source at a checkout of junhyukso/SCD"),
        (["--upstream", "scdd", "--source", "."], "there is no adapter 'scdd'; did you mean scd?"),
        (["--upstream", "vllm", "--source", ".", "--space", "decoder"], "no function for --space decoder"),
        (["--upstream", "vllm", "--source", ".", "--length", "3"], "--length has no meaning with --space discrete"),
        (["--upstream", "scd", "--source", str(LOOKALIKES / "vllm.py")], "does not define 'SpeculativeSampler'"),
        (["--source", "."], "--source needs --upstream NAME; specproof list --upstream"),
        (["file.py::name", "--source", "."], "--source needs --upstream NAME"),
        (["file.py::name", "--upstream", "scd"], "not allowed with argument"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_line_and_status_3(words: list[str], says: str, capfd: Any) -> None:
    try:
        status = main(["check", *words])
    except SystemExit as error:
        status = int(error.code or 0)
    output = capfd.readouterr()
    assert status == 3 and output.out == "" and says in output.err
    assert output.err.startswith("specproof: ") and output.err.count("\n") == 1


def test_a_step_that_raises_is_reported_in_its_own_words(tmp_path: Path, capfd: Any) -> None:
    """As gpt-fast's does since its batches: the sampled token has two dimensions, the current one has one."""
    source = edited("gpt_fast", tmp_path, "tokens.append(race(laws[-1]))", "tokens.append(race(laws[-1])[None])")
    assert main(["check", "--upstream", "gpt_fast", "--source", str(source), "--vocab", "2", "--length", "2"]) == 3
    error = capfd.readouterr().err
    assert "raised RuntimeError" in error and "number of dimensions" in error and error.count("\n") == 1


# --- the real thing

CHECKOUTS = os.environ.get("SPECPROOF_UPSTREAM", "")


@pytest.mark.skipif(not CHECKOUTS, reason="SPECPROOF_UPSTREAM names no folder of checkouts")
@pytest.mark.parametrize(("name", "space"), KINDS)
def test_a_real_checkout(name: str, space: str) -> None:
    """The expected verdicts of the adapters' docstrings, at the small sizes of this file."""
    checkout = Path(CHECKOUTS) / name
    if not checkout.exists():
        pytest.skip(f"there is no {checkout}")
    if name == "lucidrains":
        pytest.importorskip("einops")
    try:
        found = bias(subject(name, checkout, space), space, 3)
    except SubjectError as error:
        assert name == "gpt_fast" and "number of dimensions" in str(error)
        return
    assert found > 1e-3 if (name, space) in LOSSY else found < 1e-12


@pytest.mark.skipif(not CHECKOUTS, reason="SPECPROOF_UPSTREAM names no folder of checkouts")
def test_the_real_stale_label(tmp_path: Path) -> None:
    """SCD's released file has the bias of the look-alike, to the last digit; without the one line it is lossless."""
    (file,) = upstreams()["scd"].NEEDS
    path = Path(CHECKOUTS) / "scd" / file
    if not path.exists():
        pytest.skip(f"there is no {path}")
    theirs, ours = (subject("scd", source, "decoder") for source in (path, LOOKALIKES / "scd.py"))
    assert bias(theirs, "decoder", 3) == pytest.approx(bias(ours, "decoder", 3), abs=1e-13)
    lines = path.read_text().splitlines(keepends=True)
    stale = "resampled_target_scores[b, target_token_index, :] = draft_prob[b, draft_token_index, :]"
    assert stale in lines[292]
    (tmp_path / "mended.py").write_text("".join(line for line in lines if stale not in line))
    assert bias(subject("scd", tmp_path / "mended.py", "decoder"), "decoder", 3) < 1e-12


def test_spaces_are_ordered_by_what_they_show() -> None:
    assert SPACES == ("decoder", "discrete") and sys.modules["verify.upstream"].spaces("scd")[0] == "decoder"
