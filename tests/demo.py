"""The demo model for tests and end-to-end tests: compiled once per machine, its reference loaded once per run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.reference import Reference, artifact_tensors
from webcompile.assets import cache_folder
from webcompile.build.artifact import build_artifact
from webcompile.hub.source import resolve
from webcompile.progress import SilentProgress


@functools.cache
def demo_config() -> dict[str, Any]:
    return resolve("demo", SilentProgress()).config


@functools.cache
def _demo_artifact(quantization: str, *targets: str) -> Path:
    folder = cache_folder() / "tests" / f"demo-{quantization}"
    for target in targets or ("cpu", "webgpu"):
        build_artifact("demo", target=target, quantization=quantization, output=folder, progress=SilentProgress())
    return folder


@functools.cache
def _demo_reference(quantization: str) -> Reference:
    return Reference(demo_config(), artifact_tensors(_demo_artifact(quantization), demo_config()))


@pytest.fixture(scope="session")
def demo_artifact() -> Callable[..., Path]:
    """Quantization and targets (default: cpu and webgpu) → artifact folder of the demo model. Builds what has changed."""
    return _demo_artifact


@pytest.fixture(scope="session")
def demo_reference() -> Callable[[str], Reference]:
    """Quantization → the float32 reference with that artifact's weights."""
    return _demo_reference
