"""Where a report comes from: enough to repeat it, and nothing that changes when it is repeated."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import verify

LIBRARIES = ("torch", "numpy", "scipy", "transformers")


def versions(names: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """The installed versions, read from the packages' metadata without importing them."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def provenance(command: str, seed: int, device: str = "cpu") -> dict[str, str]:
    """Command, version, commit, seed, device, interpreter, platform and libraries; no date, so that reruns agree."""
    return {
        "command": command,
        "specproof": verify.__version__,
        "commit": commit(Path(verify.__file__).parent),
        "seed": str(seed),
        "device": device,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **versions(),
    }


def commit(folder: Path) -> str:
    """The commit that the package's files are at, with ``+`` where they were edited since; else ``unknown``."""

    def git(*words: str) -> str:
        line = ["git", "-C", str(folder), *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    try:
        # An installed copy may lie inside somebody else's repository: its files are not tracked there.
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
