"""The wheel: what a user installs holds the web runtime, the chat page and runtime.wasm, and needs neither emcc nor Node."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, arguments: list[str], cwd: Path) -> str:
    """Runs the unpacked wheel (PYTHONPATH comes before the editable install) with an empty PATH and home."""
    environment = {"PYTHONPATH": str(installed), "PATH": "", "HOME": str(cwd)}
    return subprocess.run(
        [sys.executable, "-m", "webcompile", *arguments],
        cwd=cwd,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_the_wheel_compiles_and_exports_the_demo_alone(installed: Path, tmp_path: Path) -> None:
    summary = json.loads(run(installed, ["demo", "--quantization", "q4f16_1", "-o", "demo", "--json"], tmp_path))
    assert summary["num_parameters"] > 1e8
    assert (tmp_path / "demo" / "manifest.json").is_file()
    run(installed, ["site", "demo", "--export", "out"], tmp_path)
    exported = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"index.html", "app.js", "worker.js", "runtime.wasm", "models.json"} <= exported


def test_the_wheel_holds_nothing_else(installed: Path) -> None:
    top = {path.name.split("-")[0] for path in installed.iterdir()}
    assert top == {"webcompile"}
    files = [path for path in installed.rglob("*") if path.is_file() and path.suffix != ".pyc"]  # those pip has made
    assert sum(path.stat().st_size for path in files) < 4_000_000
    assert (installed / "webcompile" / "assets" / "site" / "index.html").is_file()
