"""The protocol of a verifier, and the catalogue: file name -> class, read from the folder."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any, ClassVar, Protocol, runtime_checkable

from distributions.law import Law
from distributions.tape import Tape
from verify.records import Claim, Draft, Outcome


@runtime_checkable
class Verifier(Protocol):
    """A frozen dataclass whose fields are its hyper-parameters."""

    claim: ClassVar[Claim]

    def verify(self, draft: Draft, target: Law, tape: Tape) -> Outcome:
        """Decide on a draft. ``target`` has batch (rows, N + 1): the root, then after each drafted node."""
        ...


@cache
def catalog(folder: str = "verifiers") -> dict[str, type[Verifier]]:
    """Every verifier (or, with ``"saboteurs"``, every planted defect) by its file's name."""
    package = importlib.import_module(f"verify.{folder}")
    found: dict[str, Any] = {}
    for entry in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        module = importlib.import_module(f"{package.__name__}.{entry.name}")
        classes = [
            item
            for _, item in inspect.getmembers(module, inspect.isclass)
            if item.__module__ == module.__name__ and hasattr(item, "claim") and hasattr(item, "verify")
        ]
        if len(classes) != 1:
            raise ImportError(f"{module.__name__} must define exactly one verifier class, and has {len(classes)}")
        found[entry.name] = classes[0]
    return found
