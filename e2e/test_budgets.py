"""Budgets that do not depend on the adapter: commands per decoded token, and bytes that a user downloads."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

from webcompile.assets import runtime_wasm
from webcompile.browser.engine import BrowserEngine
from webcompile.browser.server import runtime_web_folder
from webcompile.engine.artifact import Artifact
from webcompile.engine.sequence import SamplingParams

DISPATCHES_PER_LAYER, OTHER_DISPATCHES = 5, 8
MAX_PIPELINES = 40
RUNTIME_GZIP_NBYTES, LIBRARY_GZIP_NBYTES, SCRIPTS_GZIP_NBYTES = 550_000, 100_000, 150_000


def gzip_nbytes(path: Path) -> int:
    return len(gzip.compress(path.read_bytes(), 9))


def test_a_decoded_token_takes_few_commands(demo_artifact: Callable[[str], Path]) -> None:
    with BrowserEngine(demo_artifact("q4f16_1")) as engine:
        engine.answer("The capital of France is", SamplingParams(temperature=0, max_tokens=8, ignore_eos=True))
        device = engine.device()
        num_layers = engine.artifact.variant("webgpu").kv_cache.num_layers
    assert device.submits_per_token == 1
    assert device.dispatches_per_token is not None and device.pipelines is not None
    assert device.dispatches_per_token <= DISPATCHES_PER_LAYER * num_layers + OTHER_DISPATCHES
    assert device.pipelines <= MAX_PIPELINES


def test_downloads_are_small(demo_artifact: Callable[[str], Path]) -> None:
    folder = demo_artifact("q4f16_1")
    assert gzip_nbytes(runtime_wasm()) <= RUNTIME_GZIP_NBYTES
    assert sum(gzip_nbytes(path) for path in runtime_web_folder().glob("*.js")) <= SCRIPTS_GZIP_NBYTES
    for variant in Artifact.open(folder).manifest.variants:
        if variant.target == "webgpu":
            assert gzip_nbytes(folder / variant.file) <= LIBRARY_GZIP_NBYTES
