"""``FILE.py::NAME``: the callable that a stranger's file defines, loaded with its own folder importable."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from verify.errors import SubjectError, article

IMPORT_DRAWS = "__specproof_import_draws__"
"""The attribute of a module that holds what was drawn while it was imported."""


def load(spec: str, objects: bool = False) -> Any:
    """The callable named by ``FILE.py::NAME``, or with ``objects`` whatever that is; the file's folder becomes, and
    stays, the first of ``sys.path``.

    NAME may be dotted: ``Class.method``, ``INSTANCE.method``. A class on the way to a method that needs an instance is
    constructed without arguments. Relative imports work, in a package or beside a lone file. What the file draws while
    it is imported is kept in its ``__specproof_import_draws__``. Raises SubjectError.
    """
    path, name = _split(spec)
    before = list(sys.path)
    sys.path.insert(0, str(path.parent))
    try:
        module = _execute(path)
        function = _lookup(module, name, path, objects)
        if draws := vars(module).get(IMPORT_DRAWS):
            # The judge looks in the function's own globals, and the file may only pass on a neighbour's function.
            getattr(function, "__globals__", {}).setdefault(IMPORT_DRAWS, draws)
        return function
    except BaseException:
        sys.path[:] = before
        raise


def _split(spec: str) -> tuple[Path, str]:
    file, mark, name = spec.rpartition("::")
    if not mark or not file or not name:
        raise SubjectError(f"{spec!r} does not name a function; write FILE.py::NAME, as in sampler.py::verify")
    path = Path(file)
    if not path.is_file():
        raise SubjectError(f"there is no file {file!r}; check the path, which is read from the current folder")
    if path.suffix != ".py":
        raise SubjectError(f"{file!r} is not a Python source file; name one that ends in .py")
    return path.resolve(), name


def _execute(path: Path) -> ModuleType:
    from verify.foreign.watch import watch_import

    try:
        with watch_import() as seen:
            name = f"{_package(path)}.{path.stem}"
            source = importlib.util.spec_from_file_location(name, path)
            assert source is not None  # the suffix is .py
            module = importlib.util.module_from_spec(source)
            # Registered under its own name, never the bare stem: a subject called torch.py must not become torch.
            sys.modules[name] = module
            # Compiled afresh: a cached .pyc is trusted by second and size, so it may be an earlier edit of the file.
            exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
    except KeyboardInterrupt:
        raise
    except SystemExit as error:
        raise SubjectError(
            f"{path.name} exits while it is imported; put its script part under if __name__ == '__main__'"
        ) from error
    except BaseException as error:
        raise SubjectError(
            f"{path.name} cannot be imported: {describe(error, path)}; mend that line or install what it asks for"
        ) from error
    if seen.draws:
        # A draw made while importing is frozen into the module, and no enumeration of calls can see it vary.
        vars(module)[IMPORT_DRAWS] = tuple(seen.draws)
    return module


def _package(path: Path) -> str:
    """The package in which the file is executed: its own where the folder is one, else one made for its folder."""
    folder = path.parent
    if (folder / "__init__.py").is_file():
        parts = [folder.name]
        while ((folder := folder.parent) / "__init__.py").is_file():
            parts.insert(0, folder.name)
        sys.path.insert(0, str(folder))
        package = importlib.import_module(".".join(parts))
        if str(path.parent) in [str(Path(item).resolve()) for item in package.__path__]:
            return package.__name__
        # Another package of that name was imported before: use a private one.
    name = f"specproof_subject_{hashlib.sha256(str(path.parent).encode()).hexdigest()[:8]}"
    private = ModuleType(name, "The folder of a file under test, so that its relative imports resolve.")
    private.__path__ = [str(path.parent)]
    sys.modules[name] = private
    return name


def _lookup(module: ModuleType, name: str, path: Path, objects: bool = False) -> Any:
    item: Any = module
    parts = name.split(".")
    for depth, part in enumerate(parts):
        so_far = ".".join(parts[: depth + 1])
        owner = item
        try:
            if inspect.isclass(owner) and inspect.isfunction(inspect.getattr_static(owner, part)):
                owner = _instance(owner, so_far)
            item = getattr(owner, part)
        except AttributeError:
            raise SubjectError(f"{path.name} has no {so_far!r}; {_offer(owner, part)}") from None
    if inspect.isclass(item):
        if not any("__call__" in vars(base) for base in item.__mro__):
            raise SubjectError(f"{name!r} in {path.name} is a class; name one of its methods, as in {name}.verify")
        item = _instance(item, name)
    if objects and not callable(item):
        return item
    if not callable(item):
        raise SubjectError(f"{name!r} in {path.name} is {article(item)}, not a function; name a callable")
    if getattr(type(item).__call__, "__globals__", None) is vars(module):
        item = item.__call__  # a bound method, unlike its object, says which globals it runs in
    found: Callable[..., Any] = item
    return found


def _instance(owner: type, name: str) -> Any:
    try:
        return owner()
    except Exception as error:
        raise SubjectError(
            f"{name!r} needs an instance and {owner.__name__}() fails ({describe(error)}); "
            f"make one in the file, such as subject = {owner.__name__}(...), and name subject"
        ) from error


def _offer(owner: Any, missing: str) -> str:
    names = [item for item in dir(owner) if not item.startswith("_")]
    near = difflib.get_close_matches(missing, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    functions = [item for item in names if inspect.isfunction(inspect.getattr_static(owner, item, None))]
    return f"it defines {', '.join(functions[:8])}" if functions else "it defines no function"


def describe(error: BaseException, path: Path | None = None) -> str:
    """An exception in one line, with the line of ``path`` that it passed through last, where it passed there."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
    if path is None or isinstance(error, SyntaxError):
        return text
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{text} (line {lines[-1]})" if lines else text
