"""The guides, executed: their files are put where they say, their other blocks run in order as a reader would."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import distributions
import verify
from verify.cli import main
from verify.exact import exact_rows
from verify.scenarios import scenarios
from verify.verifier import catalog

torch.set_num_threads(1)

GUIDES = {path.stem: path for path in sorted((Path(verify.__file__).parent / "guides").glob("*.md"))}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+\.py)\n")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in which new files of the packages are found too, and are forgotten afterwards."""
    known = set(sys.modules)
    for name in ("distributions", "verify.checks", "verify.upstream", "verify.verifiers"):
        package = importlib.import_module(name)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / name.replace(".", "/"))])
    monkeypatch.chdir(tmp_path)
    catalog.cache_clear()
    yield tmp_path
    for name in set(sys.modules) - known:
        module = sys.modules[name]
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            parent, _, child = name.rpartition(".")
            sys.modules.pop(name)
            vars(sys.modules[parent]).pop(child, None)
    catalog.cache_clear()
    importlib.invalidate_caches()


def follow(text: str, place: Path) -> dict[str, Any]:
    """Write the blocks that begin with a file's name, run the others; the names that they define."""
    names: dict[str, Any] = {"__name__": "guide"}
    for number, block in enumerate(BLOCK.findall(text)):
        if found := FILE.match(block):
            path = place / found[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.removeprefix(found[0]))
            importlib.invalidate_caches()
        else:
            module = Path(place, f"block_{number}.py")
            module.write_text(block)
            exec(compile(block, str(module), "exec"), names)
    return names


def test_there_is_a_guide_to_each_kind_of_file() -> None:
    assert set(GUIDES) == {"adapter", "check", "law", "verifier"}
    for path in GUIDES.values():
        text = path.read_text()
        assert len(BLOCK.findall(text)) >= 2 and text.count("```") == 2 * len(BLOCK.findall(text))
        assert max(map(len, text.splitlines())) <= 120


def test_the_verifier_is_found_and_exact(place: Path, capsys: Any) -> None:
    assert "barker" not in catalog()
    catalog.cache_clear()
    follow(GUIDES["verifier"].read_text(), place)
    rule = catalog()["barker"]()
    case = scenarios((3,))["three_nodes/3"]
    rows = exact_rows(rule, case.target, case.drafter, case.contexts, case.draft_length)
    assert float(rows.tv.max()) < 1e-12 and rows.prefix_closed
    assert torch.allclose(rows.kept, rows.predicted, rtol=0, atol=1e-12)
    assert main(["list"]) == 0 and "\nbarker " in capsys.readouterr().out


def test_the_law_is_one(place: Path) -> None:
    names = follow(GUIDES["law"].read_text(), place)
    law, tape = names["Laplace"], names["GeneratorTape"]
    many = law(tape(0).normal("mean", (3, 4, 2)), torch.ones(2))
    for index in (1, slice(1, None), (slice(None), 2), (..., 0), None, torch.tensor([2, 0, 0])):
        chosen = many[index]
        assert torch.equal(chosen.mean, many.mean[index if index != (..., 0) else (slice(None), 0)])
        assert chosen.event_shape == (2,) and chosen.batch_shape == tuple(chosen.mean.shape[:-1])
    assert torch.equal(many.sample(tape(5), "x"), many.sample(tape(5), "x"))
    for bad in ((torch.zeros(1), torch.zeros(1)), (torch.full((1,), torch.nan), torch.ones(1))):
        with pytest.raises(ValueError, match="scale positive"):
            law(*bad)
    with pytest.raises(TypeError, match="no closed form"):
        names["first"].overlap(law(torch.zeros(1), torch.full((1,), 2.0)))
    with pytest.raises(ValueError, match="event shape"):
        many.log_prob(torch.zeros(3))


def test_the_check_counts_and_judges(place: Path) -> None:
    names = follow(GUIDES["check"].read_text(), place)
    check = names["check"]
    assert check.claim.level == "exact" and check.claim.against and check.claim.blind_to
    tied = check.judge(names["parts"][0], 0.05)
    assert 0 <= tied.p_value <= 1 and tied.n == 100


def test_the_adapter_runs_a_checkout(place: Path) -> None:
    names = follow(GUIDES["adapter"].read_text(), place)
    source = place / "CHECKOUT/engine/accept.py"
    source.write_text(source.read_text().replace("torch.multinomial(rest, 1)", "torch.multinomial(large[0, step], 1)"))
    wrong = names["subject"]("tiny", "CHECKOUT")
    assert max(names["law_of"](wrong, problem).bias for problem in names["pool"](2, 2)[:4]) > 0.1


@pytest.mark.slow
def test_the_adapter_is_on_the_command_line(place: Path, capsys: Any) -> None:
    follow(GUIDES["adapter"].read_text(), place)
    assert main(["check", "--upstream", "tiny", "--source", "CHECKOUT"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("lossless [exact] an/example accept") and "run verbatim: accept.py sha256" in printed


@pytest.mark.slow
def test_a_block_that_fails_is_seen(place: Path) -> None:
    """The planted error: the residual of another rule in the verifier's file."""
    text = GUIDES["verifier"].read_text()
    assert text.count(", replace=missing)") == 1
    with pytest.raises(AssertionError):
        follow(text.replace(", replace=missing)", ")"), place)


def test_nothing_of_the_guides_stays_behind() -> None:
    assert "barker" not in catalog() and not hasattr(distributions, "laplace")
    assert "verify.checks.signs" not in sys.modules and "distributions.laplace" not in sys.modules


def test_guides_are_listed_and_printed(capsys: Any) -> None:
    assert main(["guide"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["check", "Adding", "a", "check"]
    for name, path in GUIDES.items():
        assert main(["guide", name]) == 0
        assert capsys.readouterr().out == path.read_text()
    assert main(["guide", "cheque"]) == 3
    assert "there are adapter, check, law, verifier" in capsys.readouterr().err


def test_every_lemma_that_is_cited_is_stated() -> None:
    stated = set(
        re.findall(r"^- \*\*([AL]\d+),", (Path(verify.__file__).parent / "lemmas.md").read_text(), re.MULTILINE)
    )
    cited: dict[str, Path] = {}
    for package in (verify, distributions):
        for path in Path(package.__file__ or "").parent.rglob("*.py"):
            for names in re.findall(r"[Ll]emmas? ([AL]\d+(?:(?: and |, )[AL]\d+)*)", path.read_text()):
                cited |= dict.fromkeys(re.findall(r"[AL]\d+", names), path)
    assert len(cited) > 20 and not {name: path for name, path in cited.items() if name not in stated}
