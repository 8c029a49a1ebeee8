"""Notebooks: the reviewed source is the .py file; the .ipynb beside it is the same, executed, short and portable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jupytext
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))
every_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def executed(source: Path) -> Any:
    return jupytext.read(source.with_suffix(".ipynb"))


def cells(notebook: Any) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


def machine_paths(text: str) -> list[str]:
    """Absolute paths of somebody's machine: a root that only a file system has, or a drive letter."""
    return re.findall(r"(?<![\w./])/(?:home|root|tmp|usr|opt|mnt|var|work|Users|private)/\S*|\b[A-Z]:\\+\w\S*", text)


def test_every_source_has_an_executed_notebook_and_every_notebook_a_source() -> None:
    assert SOURCES
    assert {path.stem for path in SOURCES} == {path.stem for path in FOLDER.glob("*.ipynb")}


@every_notebook
def test_the_executed_notebook_is_its_source(source: Path) -> None:
    assert cells(executed(source)) == cells(jupytext.read(source)), "run `make render`, which executes the sources"


@every_notebook
def test_it_is_short_and_ends_in_a_figure(source: Path) -> None:
    notebook = executed(source)
    assert len(notebook.cells) < 12
    last = notebook.cells[-1]
    assert last.cell_type == "code"
    assert {"image/png", "image/svg+xml"} & set(last.outputs[-1].get("data", {}))


@every_notebook
def test_it_was_executed_from_top_to_bottom_without_an_error(source: Path) -> None:
    code = [cell for cell in executed(source).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@every_notebook
def test_it_names_no_path_of_the_machine_that_ran_it(source: Path) -> None:
    notebook = executed(source)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/png", None)  # base64 may spell anything
    assert not machine_paths(jupytext.writes(notebook, "ipynb"))


@pytest.mark.parametrize(
    "text", ["at /home/me/a.py", '"/tmp/x.png"', "(/Users/me/b)", "C:\\Users\\me", "/usr/lib/site.py:3: Warning"]
)
def test_the_search_for_paths_finds_them(text: str) -> None:
    assert machine_paths(text)


def test_the_search_for_paths_leaves_addresses_and_fractions_alone() -> None:
    assert not machine_paths(r"https://example.org/home/x, verify/usr/a.py, 1/2, p/\ell, \Phi: \bar")
