"""Executes notebook sources into .ipynb files that are the same on every run: give it the .py files."""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbclient
import nbformat


def render(source: Path) -> None:
    """Execute ``source`` into the notebook beside it, without timestamps and with stable cell ids."""
    notebook = jupytext.read(source)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place}"
    nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(source.parent)}},
    ).execute()
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.write(notebook, source.with_suffix(".ipynb"))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        render(Path(name))
