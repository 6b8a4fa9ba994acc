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
TOKEN_NBYTES = 4
RUNTIME_GZIP_NBYTES, LIBRARY_GZIP_NBYTES, SCRIPTS_GZIP_NBYTES = 550_000, 100_000, 150_000


def gzip_nbytes(path: Path) -> int:
    return len(gzip.compress(path.read_bytes(), 9))


def test_a_decoded_token_takes_few_commands(demo_artifact: Callable[[str], Path]) -> None:
    sampled = SamplingParams(temperature=0.9, top_p=0.9, repetition_penalty=1.1, seed=1, max_tokens=8, ignore_eos=True)
    with BrowserEngine(demo_artifact("q4f16_1")) as engine:
        num_layers = engine.artifact.variant("webgpu").cache.num_layers
        for prompt in ("The first request makes what later ones use again.", "The capital of France is"):
            engine.answer(prompt, sampled)
        device = engine.device()
    assert device.submits_per_token == 1
    assert device.dispatches_per_token is not None
    assert device.pipelines is not None
    assert device.dispatches_per_token <= DISPATCHES_PER_LAYER * num_layers + OTHER_DISPATCHES
    assert device.pipelines <= MAX_PIPELINES
    assert device.bytes_written_per_token == 0
    assert device.bytes_read_per_token == TOKEN_NBYTES
    assert device.gpu_objects_per_token == 0


def test_downloads_are_small(demo_artifact: Callable[[str], Path]) -> None:
    folder = demo_artifact("q4f16_1")
    assert gzip_nbytes(runtime_wasm()) <= RUNTIME_GZIP_NBYTES
    assert sum(gzip_nbytes(path) for path in runtime_web_folder().glob("*.js")) <= SCRIPTS_GZIP_NBYTES
    for variant in Artifact.open(folder).manifest.variants:
        if variant.target == "webgpu":
            assert gzip_nbytes(folder / variant.file) <= LIBRARY_GZIP_NBYTES
