"""`doctor` never fails, whatever is missing, and says how to get it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.native_devices import find_native_devices, software_drivers
from webcompile import backends
from webcompile.browser import launch
from webcompile.cli import doctor
from webcompile.cli.main import main
from webcompile.errors import WebcompileError


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with no program at all."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(launch.EXECUTABLE_VARIABLE, raising=False)


def checks(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert main(["doctor", "--json"]) == 0
    return {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}


@pytest.mark.usefixtures("bare")
def test_what_is_missing_comes_with_a_way_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_browser() -> Path:
        raise WebcompileError("tool_missing", "no browser", "install one")

    monkeypatch.setattr(doctor, "browser_executable", no_browser)
    found = checks(capsys)
    for name in ("emcc", "node", "Chromium"):
        assert not found[name]["ok"]
        assert found[name]["get"]
    assert found["apache-tvm"]["ok"]
    assert found["LLVM for wasm32"]["ok"]
    assert main(["doctor"]) == 0
    assert "missing Chromium" in capsys.readouterr().out


def test_adapters_are_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = {"name": "google swiftshader", "features": ["subgroups"], "limits": {}}
    monkeypatch.setattr(doctor, "browser_executable", lambda: Path("/browser"))
    monkeypatch.setattr(doctor, "query_adapter", lambda _: ("1.2", adapter))
    found = checks(capsys)
    assert found["WebGPU adapter swiftshader"]["ok"]
    assert found["WebGPU adapter swiftshader"]["found"] == "google swiftshader in 1.2, subgroups"
    assert not found["WebGPU adapter hardware"]["ok"], "software that stands in for hardware is none"


def test_native_devices_compute(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_browser() -> Path:
        raise WebcompileError("tool_missing", "no browser", "install one")

    monkeypatch.setattr(doctor, "browser_executable", no_browser)
    devices = {target: find_native_devices(target) for target in backends.TARGETS}
    with software_drivers():
        found = {name: check for name, check in checks(capsys).items() if check["group"] == "Devices"}
    assert found["cpu"]["found"].endswith("a kernel gave the right answer")
    for target, listed in devices.items():
        for index, device in enumerate(listed):
            check = found[f"{target}:{index}"]
            assert check["ok"], check
            assert device.name in check["found"]
            assert check["found"].endswith("a kernel gave the right answer")
    for name in ("cuda", "metal", "rocm"):
        assert found[name]["ok"] or found[name]["get"]


def test_the_browser_is_the_one_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\n")
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(launch.EXECUTABLE_VARIABLE, raising=False)
    assert launch.browser_executable() == browser
    monkeypatch.setenv(launch.EXECUTABLE_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(WebcompileError, match="which is no executable") as caught:
        launch.browser_executable()
    assert caught.value.code == "tool_missing"
    assert "playwright install" in caught.value.hint


def test_arguments_of_the_environment_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(launch.ARGUMENTS_VARIABLE, "--one '--two=a b'")
    arguments = launch.browser_arguments("swiftshader")
    assert arguments[-2:] == ["--one", "--two=a b"]
    assert "--use-webgpu-adapter=swiftshader" in arguments
    assert "--use-webgpu-adapter=swiftshader" not in launch.browser_arguments("hardware")
    with pytest.raises(WebcompileError, match="unknown adapter"):
        launch.browser_arguments("toaster")
