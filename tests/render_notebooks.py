"""Executes notebook sources into .ipynb files that are the same on every run, and writes a page of each: give it the
.py files. With ``--pages`` nothing is executed: the pages are made of the notebooks that are there.

A page is one file that loads nothing: images are embedded, formulas are MathML, code is coloured by a style sheet.
"""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbclient
import nbformat
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from verify.report.pages import templates

PAGES = Path(__file__).resolve().parents[1] / "reports" / "notebooks"
LONGEST = 14  # lines of code that are shown at once; more unfold
LONG = 50  # characters of a formula in the text


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


def page(notebook: Any) -> str:
    """The executed notebook as one HTML document, in the style of the report."""
    cells = [_cell(cell) for cell in notebook.cells if cell.source.strip()]
    title = next(cell.source for cell in notebook.cells if cell.cell_type == "markdown").strip().splitlines()[0]
    content = {"cells": cells, "title": title.lstrip("# "), "colours": _colours()}
    return templates().get_template("notebook.html.jinja").render(content).rstrip() + "\n"


def _cell(cell: Any) -> dict[str, Any]:
    if cell.cell_type == "markdown":
        text = _markdown().render(cell.source)
        return {"markdown": text.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")}
    code = highlight(cell.source, PythonLexer(), HtmlFormatter())
    code = re.sub(r'<span class="(?:n|p|w)">(.*?)</span>', r"\1", code)  # most of it, and in the colour of the text
    outputs = [found for output in cell.outputs if (found := _output(output)) is not None]
    return {"markdown": "", "code": code, "outputs": outputs, "open": cell.source.count("\n") < LONGEST}


def _output(output: Any) -> dict[str, Any] | None:
    if output.output_type == "stream":
        return {"image": "", "text": output.text.rstrip()}
    if "image/png" in output.data:
        return _image(base64.b64decode(output.data["image/png"]))
    text = output.data.get("text/plain", "").rstrip()
    return {"image": "", "text": text} if text else None


def _image(data: bytes) -> dict[str, Any]:
    """The figure in 64 colours: a fifth of the size, and as sharp."""
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    shrunk = io.BytesIO()
    white.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(shrunk, "PNG", optimize=True)
    text = base64.b64encode(shrunk.getvalue()).decode("ascii")
    size = dict(zip(("width", "height"), image.size, strict=True))
    return {"image": f"data:image/png;base64,{text}", "alt": "The figure of this cell.", **size}


def _markdown() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    return reader.use(dollarmath_plugin, renderer=_formula, double_inline=True, allow_digits=False)


def _formula(text: str, options: dict[str, Any]) -> str:
    text = re.sub(r"\\\\\[[\d.]+\w+\]", r"\\\\", text)  # room between rows, which MathML has of itself
    if options.get("display_mode"):
        return f'<div class="maths">{convert(text, display="block")}</div>'
    # A formula in the text is not broken: one that a phone has no room for scrolls by itself.
    return f'<span class="long">{convert(text)}</span>' if len(text) > LONG else str(convert(text))


def _colours() -> str:
    """Code in colours that suit either theme, as a style sheet."""
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("friendly", "github-dark"))
    bare = ".highlight, .highlight pre { background: none !important; } .highlight pre { border: 0; padding: 0; }"
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{bare}"


if __name__ == "__main__":
    names = sys.argv[1:]
    for name in names:
        if name != "--pages":
            if "--pages" not in names:
                render(Path(name))
            executed = nbformat.read(Path(name).with_suffix(".ipynb"), as_version=4)
            PAGES.mkdir(parents=True, exist_ok=True)
            (PAGES / Path(name).with_suffix(".html").name).write_text(page(executed), encoding="utf-8")
