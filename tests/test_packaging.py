"""What is released: versions that agree, a citation that is valid, and archives that hold all of it and no more."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from datetime import date
from pathlib import Path

import pytest
import torch
import yaml

import verify

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("verify", "distributions")
MEGABYTE = 1 << 20
OFFLINE = ("--no-deps", "--no-index", "--ignore-installed", "--no-warn-script-location")
NEVER = re.compile(
    r"__pycache__|\.pyc$|\.ipynb_checkpoints|\.venv|\.hypothesis|_cache|(^|/)reports?/(index|findings)|\.so$"
)


def data() -> set[str]:
    """The files of the packages that are not Python, as paths from the root."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in found if path.suffix not in (".py", ".pyc")}


def test_there_is_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    releases = re.findall(r"^## \[(\d\S*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert project["version"] == verify.__version__ == citation["version"] == releases[0][0]
    assert str(citation["date-released"]) == releases[0][1]
    assert [day for _, day in releases] == sorted((day for _, day in releases), reverse=True)


def test_the_citation_is_valid() -> None:
    """Citation File Format 1.2.0: the required keys, the types of those given, and no other."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    text = {"cff-version", "message", "title", "version", "license", "abstract", "type"}
    assert set(citation) <= text | {"authors", "date-released", "keywords"}
    assert all(isinstance(citation[key], str) and citation[key] for key in text & set(citation))
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    parts = {"name", "family-names", "given-names"}  # an entity has a name; a person at least one of the others
    assert citation["authors"] and all(parts & set(author) for author in citation["authors"])
    assert isinstance(citation["date-released"], date)
    assert len(set(citation["keywords"])) == len(citation["keywords"])


def test_the_changelog_counts_what_is_there() -> None:
    from verify.scenarios import scenarios
    from verify.study import studies
    from verify.upstream import upstreams
    from verify.verifier import catalog

    text = " ".join((ROOT / "CHANGELOG.md").read_text().split("## [0.1.0]")[1].split())
    verifiers = [kind.claim.exact for kind in catalog().values()]
    assert f"{len(verifiers)} verifiers ({sum(verifiers)} claim to be exact, {verifiers.count(False)}" in text
    assert f"{len(catalog('saboteurs'))} planted defects" in text
    assert f"{len(catalog('controls'))} lossless rules" in text
    assert f"{len(scenarios((2,)))} finite scenarios" in text and f"({len(studies())} studies)" in text
    assert len(upstreams()) == 7 and "samplers of seven other projects" in text


def test_both_packages_say_that_they_are_typed() -> None:
    assert {"verify/py.typed", "distributions/py.typed"} <= data()


def run(*words: str | Path, folder: Path, status: int = 0) -> str:
    done = subprocess.run(list(map(str, words)), cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of this tree, and the wheel that is built from the sdist, not from the tree."""
    folder = tmp_path_factory.mktemp("build")
    venv.create(folder / "tools", with_pip=True)
    python = folder / "tools/bin/python"
    got = subprocess.run([python, "-m", "pip", "install", "-q", "hatchling"], capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"hatchling cannot be installed here: {got.stderr.splitlines()[-1:]}")
    run(python, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, folder=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    run(python, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, sdist, folder=folder)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.mark.slow
def test_the_archives_hold_all_of_it_and_no_more(archives: tuple[Path, Path]) -> None:
    sdist, wheel = archives
    with tarfile.open(sdist) as file:
        source = {name.partition("/")[2] for name in file.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        built = set(archive.namelist())
    files = data()
    assert any(name.endswith(".safetensors") for name in files) and any(name.endswith(".jinja") for name in files)
    assert files <= source and files <= built
    assert {"README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "Makefile", "tests/test_packaging.py"} <= source
    assert not [name for name in source | built if NEVER.search(name)]
    assert {name.split("/")[0] for name in source if "/" in name} == {*PACKAGES, "tests", "notebooks"}
    assert {name.split("/")[0] for name in built} == {*PACKAGES, f"specproof-{verify.__version__}.dist-info"}
    assert sdist.stat().st_size < 20 * MEGABYTE and wheel.stat().st_size < 16 * MEGABYTE


@pytest.mark.slow
def test_the_wheel_works_where_nothing_else_is(archives: tuple[Path, Path], tmp_path: Path) -> None:
    """In a fresh environment, from an empty folder. The libraries are those of this environment, put on the path: to
    install torch again takes minutes, and tells nothing of this package. No .pth file of theirs is run so, and the
    editable install of this tree is not found; `specproof doctor` is asked.
    """
    venv.create(tmp_path / "fresh", with_pip=True)
    (own,) = (tmp_path / "fresh").glob("lib/python*/site-packages")
    libraries = Path(torch.__file__).parents[1]
    (own / "libraries.pth").write_text(f"{libraries}\n")
    python, empty = tmp_path / "fresh/bin/python", tmp_path / "empty"
    empty.mkdir()
    run(python, "-m", "pip", "install", "-q", *OFFLINE, archives[1], folder=empty)

    def specproof(*words: str, status: int = 0) -> str:
        return run(python.with_name("specproof"), *words, folder=empty, status=status)

    where = specproof("doctor")
    assert all(str(own / package) in where for package in PACKAGES) and str(ROOT / "verify") not in where
    assert specproof("--version") == f"specproof {verify.__version__}\n"
    assert "\nrejection " in specproof("list") and "\nscd " in specproof("list", "--upstream")
    assert "21 of 48 speed-ups exceed the bound with a free drafter" in specproof("claims", "cspd_table1")
    assert specproof("guide", "law").startswith("# Adding a law")
    weights = (
        "from pathlib import Path; import distributions as d; print(*Path(d.__file__).parent.rglob('*.safetensors'))"
    )
    assert len(run(python, "-c", weights, folder=empty).split()) == len(list(ROOT.glob("distributions/weights/*")))

    example = re.findall(r"```python\n(import torch\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    (empty / "my_sampler.py").write_text(example)
    printed = specproof("check", "my_sampler.py::verify_block", "--report", "page.html", status=1)
    assert "lossy [exact] my_sampler.py::verify_block: bias 0.465 (tv)" in printed
    assert "behaves exactly like residual_softmax" in printed
    assert "<html" in (empty / "page.html").read_text()[:500]

    (empty / "consumer.py").write_text("from verify import check_verifier\n\nreveal_type(check_verifier)\n")
    words = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "consumer.py")
    typed = run(*words, folder=empty)
    assert "Revealed type" in typed and "-> verify.records.Verdict" in typed
