"""Adapters for samplers of other projects: their own code, run verbatim from a checkout, never bundled.

One file is one project. It says in ``NEEDS`` which definitions of which files it lifts, in ``READ`` at which commit
these were read, in ``STAND_INS`` what replaces names that the sampler mentions and the verdict does not depend on, and
has a function ``discrete`` or ``decoder``, or both: given the lifted definitions, a function in the form that
``check_verifier`` or ``check_decoder`` takes. The folder is the list.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from verify.errors import SubjectError
from verify.upstream.lift import lift

SPACES = ("decoder", "discrete")  # whole sequences first: they show more


def upstreams() -> dict[str, ModuleType]:
    """Every adapter of the folder by its name."""
    names = sorted(entry.name for entry in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "NEEDS")}


def spaces(name: str) -> tuple[str, ...]:
    """The spaces that an adapter has a function for. Raises SubjectError for a name that is no adapter."""
    known = upstreams()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"
        raise SubjectError(f"there is no adapter {name!r}; {hint}")
    return tuple(space for space in SPACES if hasattr(known[name], space))


def rows() -> list[tuple[str, ...]]:
    """The adapters as a table: name, project, the spaces, the files, and the definitions lifted from them."""
    found: list[tuple[str, ...]] = [("name", "project", "spaces", "file", "definitions")]
    for name, adapter in upstreams().items():
        for file, names in adapter.NEEDS.items():
            found.append((name, adapter.PROJECT, ", ".join(spaces(name)), file, ", ".join(names)))
    return found


def subject(name: str, source: str | Path | None, space: str = "") -> Callable[..., Any]:
    """The function to be judged in ``space`` (by default the adapter's first), from a checkout or its one file.

    Raises SubjectError where the adapter, the source, a definition or what it imports is missing.
    """
    offered = spaces(name)
    if (space or offered[0]) not in offered:
        raise SubjectError(f"the adapter {name} has no function for --space {space}; use {' or '.join(offered)}")
    adapter = upstreams()[name]
    lifted: dict[str, Any] = dict(getattr(adapter, "STAND_INS", {}))
    for (_, names), path in zip(adapter.NEEDS.items(), files(name, source), strict=True):
        module = lift(path, *names, **lifted)
        lifted |= {item: getattr(module, item) for item in names}
    function: Callable[..., Any] = getattr(adapter, space or offered[0])(SimpleNamespace(**lifted))
    return function


def files(name: str, source: str | Path | None) -> list[Path]:
    """The files that an adapter reads under ``source``: a checkout, or the last of them with the others beside it.

    Raises SubjectError where one is missing.
    """
    adapter = upstreams()[name]
    if source is None:
        raise SubjectError(f"--upstream {name} needs --source PATH, a checkout of {adapter.PROJECT}; none is bundled")
    root = Path(source)
    found = [root.parent / Path(file).name if root.is_file() else root / file for file in adapter.NEEDS]
    if root.is_file():
        found[-1] = root
    for path in found:
        if not path.is_file():
            raise SubjectError(
                f"there is no file {str(path)!r}; point --source at a checkout of {adapter.PROJECT} or at its "
                f"{Path(list(adapter.NEEDS)[-1]).name}"
            )
    return found


def loaded(name: str, source: str | Path | None, space: str) -> tuple[Callable[..., Any], str, str, tuple[str, ...]]:
    """The function, Python that makes it again, what to call it, and a note on what was run.

    The note has the hashes of the files, and the commit at which those were read that the adapter was written for.
    """
    function, adapter = subject(name, source, space), upstreams()[name]
    head = f"from verify.upstream import subject\nfn = subject({name!r}, {str(source)!r}, {space!r})\n"
    marks = [f"{path.name} sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}" for path in files(name, source)]
    note = f"run verbatim: {', '.join(marks)}; the adapter was written for {adapter.PROJECT} at {adapter.READ}"
    return function, head, f"{adapter.PROJECT} {list(adapter.NEEDS.values())[-1][0]}", (note,)
