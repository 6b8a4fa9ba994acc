"""Which software a result came from."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from webcompile import __version__


def package_version(name: str) -> str | None:
    """Installed version of a distribution; None if it is not installed (a checkout that was never installed)."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Commit of the checkout that webcompile runs from, ending in `+` when files differ from it; None outside of one."""
    git, root = shutil.which("git"), Path(__file__).resolve().parents[2]
    if git is None or not (root / ".git").exists():
        return None
    head = _output(git, "-C", str(root), "rev-parse", "--short=12", "HEAD")
    changed = _output(git, "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return head and head + ("+" if changed else "")


def versions() -> dict[str, str | None]:
    """What `generate` and `bench` report."""
    return {
        "webcompile": __version__,
        "tvm": package_version("apache-tvm"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": commit(),
    }


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
