"""House rules that a reader should not have to check: the source is parsed, not trusted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import distributions
import verify

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for package in ("distributions", "verify") for path in (ROOT / package).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]

# What draws, by the name of its owner. Seeding a stranger's generators, and putting them back, draws nothing.
TORCH = {
    "bernoulli", "multinomial", "normal", "poisson", "rand", "rand_like", "randint", "randint_like", "randn",
    "randn_like", "randperm",
}  # fmt: skip
ANYONE = {
    "bernoulli_", "cauchy_", "exponential_", "geometric_", "gumbel_softmax", "log_normal_", "normal_", "random_",
    "rsample", "rvs", "uniform_",
}  # fmt: skip
SEEDING = {"Random", "get_state", "getstate", "seed", "set_state", "setstate"}
OWNERS = {"random", "np.random", "numpy.random", "secrets"}


def draws(tree: ast.AST) -> Iterator[str]:
    """Every place in a module that draws, as ``line: what``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {item.name for item in node.names}
            bad = names & TORCH if node.module == "torch" else names - SEEDING if node.module in OWNERS else set()
            yield from (f"{node.lineno}: from {node.module} import {name}" for name in sorted(bad))
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            if (
                node.attr in ANYONE
                or owner == "torch"
                and node.attr in TORCH
                or owner in OWNERS
                and node.attr not in SEEDING
            ):
                yield f"{node.lineno}: {owner}.{node.attr}"


@pytest.mark.parametrize("name", NAMES)
def test_no_draw_outside_the_tape(name: str) -> None:
    if name in ("distributions/tape.py", "distributions/enumeration.py") or name.startswith("verify/foreign/"):
        return  # the tape itself, and the code that answers strangers' draws with it
    assert not list(draws(ast.parse((ROOT / name).read_text())))


@pytest.mark.parametrize(
    "line",
    [
        "torch.rand(3)",
        "torch.randn_like(x)",
        "x.exponential_()",
        "x.uniform_(0, 1)",
        "np.random.default_rng(0)",
        "numpy.random.rand()",
        "random.random()",
        "random.shuffle(x)",
        "from random import choice",
        "from numpy.random import default_rng",
        "from torch import multinomial",
        "secrets.randbelow(3)",
        "torch.distributions.Normal(0, 1).rsample()",
        "stats.norm.rvs(size=3)",
        "torch.normal(x, y)",
    ],
)
def test_the_search_for_draws_finds_them(line: str) -> None:
    assert list(draws(ast.parse(line)))


def test_the_search_for_draws_leaves_the_tape_alone() -> None:
    allowed = (
        "Markov.random(3, 1, 0); tape.uniform('a', (3,)); tape.normal('b', (3,)); law.sample(tape, 'c'); self.seed"
    )
    assert not list(draws(ast.parse(allowed)))
    assert list(draws(ast.parse((ROOT / "distributions/tape.py").read_text())))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def ambiguous(tree: ast.AST) -> list[str]:
    """Functions with a parameter called p or q."""
    found = []
    for function in functions(tree):
        arguments = function.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        if {item.arg for item in every if item is not None} & {"p", "q"}:
            found.append(f"{function.lineno}: {function.name}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_no_parameter_is_called_p_or_q(name: str) -> None:
    """Published code disagrees on which of the two is the target."""
    if name.startswith("verify/foreign/"):
        return  # a stand-in keeps the signature of what it stands for, and torch calls a probability p
    assert not ambiguous(ast.parse((ROOT / name).read_text()))


def test_the_search_for_p_and_q_finds_them() -> None:
    assert len(ambiguous(ast.parse("def f(p): ...\ndef g(x, *, q=1): ...\nasync def h(*p): ...\ndef i(x): ..."))) == 3


def undocumented(tree: ast.Module) -> list[str]:
    """Public functions and classes of a module without a docstring; the module itself, if it has none."""
    found = [] if ast.get_docstring(tree) or not tree.body else ["module"]
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                found.append(f"{node.lineno}: {node.name}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_public_functions_and_classes_have_docstrings(name: str) -> None:
    assert not undocumented(ast.parse((ROOT / name).read_text()))


def test_the_search_for_docstrings_finds_what_lacks_one() -> None:
    assert undocumented(ast.parse("def f(): ...\nclass A:\n    '''Has one.'''\ndef _g(): ...")) == ["module", "1: f"]


@pytest.mark.parametrize("package", [distributions, verify])
def test_imports_come_from_here(package: object) -> None:
    """Unrelated packages of these names exist on the index; installed beside this one they would shadow it."""
    assert Path(str(getattr(package, "__file__", None))).resolve() == ROOT / package.__name__ / "__init__.py"  # type: ignore[attr-defined]


def test_laws_do_not_import_verification() -> None:
    for name in NAMES:
        if name.startswith("distributions/"):
            for node in ast.walk(ast.parse((ROOT / name).read_text())):
                modules = [item.name for item in node.names] if isinstance(node, ast.Import) else []
                modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not any(module.split(".")[0] == "verify" for module in modules), name
