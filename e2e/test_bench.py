"""`webcompile bench` with its profile, in Chromium with the real model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from webcompile.cli.main import main
from webcompile.engine.artifact import Artifact


def test_bench_profiles_prefill_and_decode_apart(
    demo_artifact: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, trace, decode_tokens = demo_artifact("q4f16_1"), tmp_path / "trace.json", 4
    num_layers = Artifact.open(folder).variant("webgpu").cache.num_layers
    lengths = ["--context", "4", "--decode-tokens", str(decode_tokens), "--repeat", "1"]
    assert main(["bench", str(folder), *lengths, "--profile", str(trace), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert "timestamp-query" not in result["device"]["features"], "what is measured is not slowed down"

    per_token = result["contexts"][-1]["per_token"]
    assert set(per_token) == {"dispatches", "submits", "host_ms", "bytes_written", "bytes_read", "gpu_objects"}
    assert per_token["gpu_objects"] == 0
    profiles = result["profiles"]
    phases = [(profile["context_tokens"], profile["phase"]) for profile in profiles]
    assert phases == [(4, "prefill"), (4, "decode")]
    for profile in profiles:
        assert profile["totalMs"] > 0
        assert sum(kernel["share"] for kernel in profile["kernels"]) == pytest.approx(1)
        assert sum(kernel["dispatches"] for kernel in profile["kernels"]) == profile["dispatches"]
        [attention] = [kernel for kernel in profile["kernels"] if "attention" in kernel["name"]]
        assert profile["phase"] in attention["name"]
        steps = attention["dispatches"] / num_layers
        assert steps == 1 if profile["phase"] == "prefill" else steps >= decode_tokens, "replayed steps are timed, too"

    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]
    assert len(events) == sum(profile["dispatches"] for profile in profiles)
    assert all(event["dur"] >= 0 for event in events)
    starts = [event["ts"] for event in events]
    assert starts == sorted(starts)
