"""Named definitions of a stranger's file, executed verbatim, without importing the file or its project."""

from __future__ import annotations

import ast
import dis
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from verify.errors import SubjectError
from verify.foreign.watch import watch_import
from verify.loader import describe

COMPILERS = frozenset({"torch.jit.script", "torch.compile", "triton.jit"})


def lift(path: Path, *names: str, **given: Any) -> ModuleType:
    """A module holding the definitions ``names`` of a file, and whatever else at its top level these refer to.

    The names that each definition loads (LOAD_GLOBAL and LOAD_NAME of its code) are followed through the file's own
    functions, classes, assignments and imports; nothing else of the file runs. ``given`` names are used as they are, in
    place of the file's. Annotations are not evaluated, and decorators that compile are left off, because draws inside
    compiled code cannot be answered. Raises SubjectError where a definition is missing or cannot be executed.
    """
    try:
        statements = _statements(ast.parse(path.read_bytes(), str(path)))
    except SyntaxError as error:
        raise SubjectError(f"{path.name} cannot be read: {describe(error)}; is it a Python file?") from error
    for name in names:
        if name not in statements:
            raise SubjectError(f"{path} does not define {name!r}; check out the commit that the adapter was read at")
    chosen: dict[str, ast.stmt] = {}
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in statements and name not in chosen and name not in given:
            chosen[name] = statements[name]
            pending += _loads(_compiled([statements[name]], path))
    body = sorted({id(item): item for item in chosen.values()}.values(), key=lambda item: item.lineno)
    key = hashlib.sha256(f"{path}{sorted(chosen)}".encode()).hexdigest()[:8]
    module = ModuleType(f"specproof_lifted_{path.stem}_{key}")
    vars(module).update(given)
    sys.modules[module.__name__] = module  # where dataclasses and pickles look for the module of a class
    try:
        with watch_import() as seen:
            exec(_compiled(body, path), vars(module))
    except Exception as error:
        raise SubjectError(
            f"{', '.join(names)} of {path.name} cannot be executed: {describe(error, path)}; install what it asks for"
        ) from error
    if seen.draws:
        raise SubjectError(f"{path.name} {'; '.join(seen.draws)}; such a definition is another one at every import")
    return module


def _statements(tree: ast.Module) -> dict[str, ast.stmt]:
    """What binds each name at the top level: the last definition, and of an import only the part that is asked for."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        for name, statement in _bound(node):
            if isinstance(statement, ast.Import) and "." in statement.names[0].name:
                found.setdefault(name, statement)  # `import torch.jit` after `import torch` binds nothing new
            else:
                found[name] = statement
    return found


def _bound(node: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        for inner in ast.walk(node):
            if isinstance(inner, (ast.FunctionDef, ast.ClassDef)):
                inner.decorator_list = [item for item in inner.decorator_list if _dotted(item) not in COMPILERS]
        yield node.name, node
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        for alias in node.names:
            kind = ast.Import([alias])
            if isinstance(node, ast.ImportFrom):
                kind = ast.ImportFrom(node.module, [alias], node.level)  # type: ignore[assignment]
            yield alias.asname or alias.name.split(".")[0], ast.copy_location(kind, node)
    elif isinstance(node, ast.Assign):
        yield from ((target.id, node) for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        yield node.target.id, node


def _dotted(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)


def _compiled(body: list[ast.stmt], path: Path) -> CodeType:
    module, flags = ast.Module(body, type_ignores=[]), annotations.compiler_flag
    code: CodeType = compile(module, str(path), "exec", flags=flags, dont_inherit=True)
    return code


def _loads(code: CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname.startswith(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")):
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _loads(constant)
