"""The demo model side by side: the web runtime in Chromium, the CPU, Vulkan and OpenCL, by the command that users have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native_devices import engine_names
from tests.reference import COMPLETION_TOKENS, PROMPTS
from webcompile.browser.launch import launch
from webcompile.cli.main import main
from webcompile.compare.report import Report
from webcompile.config import from_json

VULKAN, OPENCL = "llvmpipe", "pthread"


def places(*names: str) -> str:
    """What `--targets` takes; devices by their short names, and a variant after a slash."""
    devices = {"cpu": "cpu", "webgpu": "webgpu", **engine_names()}
    missing = [name for name in names if name.partition("/")[0] not in devices]
    if missing:
        pytest.skip(f"no driver {', '.join(missing)}")
    return ",".join(devices[name.partition("/")[0]] + "".join(name.partition("/")[1:]) for name in names)


def compare(folder: Path, targets: str, report: Path, *, num_prompts: int, tokens: int) -> Report:
    (report.parent / "prompts.json").write_text(json.dumps(PROMPTS[:num_prompts]))
    quantization = json.loads((folder / "manifest.json").read_text())["model"]["quantization"]
    options = ["--targets", targets, "--quantization", quantization, "-o", str(folder), "--report", str(report)]
    options += ["--prompts", str(report.parent / "prompts.json"), "--tokens", str(tokens)]
    assert main(["compare", "demo", *options]) == 0
    found = from_json(Report, json.loads(report.with_name(f"{report.name}.json").read_text()), where="report")
    assert not found.missing
    assert [target.name for target in found.targets] == targets.split(",")
    return found


def test_all_targets_give_the_same_tokens_greedy_and_seeded(tmp_path: Path, demo_artifact: Callable[..., Path]) -> None:
    targets, report = places("webgpu", "cpu", VULKAN, OPENCL), tmp_path / "report"
    found = compare(demo_artifact("q4f32_1"), targets, report, num_prompts=5, tokens=COMPLETION_TOKENS)
    for target in found.targets:
        assert target.num_tokens == 5 * COMPLETION_TOKENS
        assert target.same_tokens == target.seeded_same_tokens == target.num_tokens
        assert target.max_difference < 2e-3
    with launch("swiftshader") as browser:
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        page.goto(report.with_name("report.html").as_uri())
        assert "The targets agree" in page.inner_text("body")
        assert page.locator("table tr").count() == 5
        assert page.locator("details").count() == 5
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_unquantized_weights_too(tmp_path: Path, demo_artifact: Callable[..., Path]) -> None:
    """Natively; test_parity_webgpu has them in the browser."""
    targets = places("cpu", VULKAN, OPENCL)
    found = compare(demo_artifact("q0f32"), targets, tmp_path / "report", num_prompts=1, tokens=COMPLETION_TOKENS)
    for target in found.targets:
        assert target.same_tokens == target.seeded_same_tokens == COMPLETION_TOKENS
        assert target.max_difference < 2e-3


def test_half_floats_differ_by_no_more_than_is_explained(tmp_path: Path, demo_artifact: Callable[..., Path]) -> None:
    found = compare(demo_artifact("q4f16_1"), places("cpu", f"{VULKAN}/f16"), tmp_path / "report", num_prompts=1, tokens=8)
    assert found.agreed
    assert 1e-4 < found.targets[1].max_difference < 0.5
