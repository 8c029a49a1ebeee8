"""Parts of a long study, kept as they are finished: interrupted, it goes on where it was."""

from __future__ import annotations

import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import distributions
import verify
from distributions.whole import whole
from verify.report.provenance import versions

Part = TypeVar("Part")


@dataclass(frozen=True)
class Parts:
    """Finished parts in a ``folder``; None keeps nothing."""

    folder: Path | None

    def of(self, name: str, compute: Callable[[], Part]) -> Part:
        """The part of that name, computed unless an earlier run has kept it; a line on stderr says which."""
        if self.folder is None:
            return compute()
        file = self.folder / f"{sha256(name.encode()).hexdigest()[:16]}.pickle"
        if file.exists():
            print(f"{name}: kept by an earlier run", file=sys.stderr, flush=True)
            kept: Part = pickle.loads(file.read_bytes())
            return kept
        before = time.process_time()
        part = compute()
        with whole(file) as beside:
            beside.write_bytes(pickle.dumps(part))
        print(f"{name}: {time.process_time() - before:.0f} CPU seconds", file=sys.stderr, flush=True)
        return part


NOTHING = Parts(None)
"""For short runs."""


def parts(study: str, budget: object) -> Parts:
    """Those of a study at a budget, in a temporary folder of the sources, weights and libraries as they are: after an
    edit of anything that draws or judges, all parts are computed anew.
    """
    source = sha256(f"{budget} {versions()}".encode())
    for package in (distributions, verify):
        root = Path(package.__file__ or "").parent
        for file in sorted(item for item in root.rglob("*") if item.suffix in (".py", ".safetensors")):
            if file.relative_to(root).parts[0] != "report" and file.stem != "drawings":
                source.update(file.read_bytes())
    return Parts(Path(tempfile.gettempdir()) / f"specproof-{study}-{source.hexdigest()[:12]}")
