"""`webcompile doctor`: what this machine can build and run, and how to get what is missing."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webcompile.browser.launch import ADAPTERS, browser_executable, launch, page_adapter
from webcompile.cli.versions import package_version, versions
from webcompile.config import to_json
from webcompile.engine.machine import processor_name
from webcompile.errors import WebcompileError

if TYPE_CHECKING:
    from webcompile.backends import NativeDevice

_ROOT = Path(__file__).resolve().parents[2]
_TVM_TARGETS = ("llvm", "webgpu", "cuda", "metal", "opencl", "vulkan", "rocm")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `found` describes it; when it is missing, `get` says how to get it."""

    group: str
    name: str
    ok: bool
    found: str
    purpose: str
    get: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Looks at everything and prints it. What is missing is no failure of this command."""
    checks: list[Check] = []
    for look in (_packages, _compiler, _tools, _built_parts, _browsers, _drivers, _devices, _machine):
        for check in look():
            checks.append(check)
            if not arguments.json:
                _print(check, is_first=len(checks) == 1 or checks[-2].group != check.group)
    if arguments.json:
        print(json.dumps({"checks": to_json(checks), "versions": versions()}, ensure_ascii=False))
    return 0


def _print(check: Check, *, is_first: bool) -> None:
    if is_first:
        print(f"{check.group}")
    print(f"  {'ok     ' if check.ok else 'missing'} {check.name}: {check.found or 'not found'}", flush=True)
    if not check.ok:
        print(f"          for {check.purpose}. {check.get}")


def _packages() -> Iterator[Check]:
    for name, wanted in _pinned_packages().items():
        installed = package_version(name)
        found = f"{installed}, expected {wanted}" if installed and installed != wanted else installed or ""
        yield Check(
            "Python packages", name, installed == wanted, found, "running webcompile", f"pip install {name}=={wanted}"
        )
    extra = package_version("playwright")
    get = "pip install 'webcompile[browser]'"
    yield Check("Python packages", "playwright", extra is not None, extra or "", "--device webgpu", get)


def _pinned_packages() -> dict[str, str]:
    """Distribution → exact version, of those that webcompile pins."""
    try:
        requirements = metadata.requires("webcompile") or []
    except metadata.PackageNotFoundError:
        requirements = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    matches = (re.fullmatch(r"([\w.-]+)==([\w.]+)", requirement.split(";")[0].strip()) for requirement in requirements)
    return {match[1]: match[2] for match in matches if match}


def _compiler() -> Iterator[Check]:
    try:
        import tvm
    except Exception as error:  # A wheel for another system fails in many ways.
        yield Check("Compiler", "TVM", False, str(error), "compiling", "pip install the pinned apache-tvm")
        return
    for target in _TVM_TARGETS:
        built = tvm.get_global_func(f"target.build.{target}", allow_missing=True) is not None
        # Only these two are needed to compile for the browser.
        if built or target in ("llvm", "webgpu"):
            get = "Install the pinned apache-tvm wheel."
            yield Check("Compiler", f"TVM target {target}", built, "built in" if built else "", f"target {target}", get)
    list_targets = tvm.get_global_func("target.llvm_get_targets", allow_missing=True)
    version = tvm.get_global_func("target.llvm_version_major", allow_missing=True)
    names = {str(name) for name in list_targets()} if list_targets else set()
    held = [name for name in ("wasm32", "x86_64", "aarch64", "nvptx64", "amdgcn") if name in names]
    found = f"LLVM {version()} with {', '.join(held)}" if version and held else ""
    get = "Install the pinned apache-tvm wheel."
    yield Check("Compiler", "LLVM for wasm32", "wasm32" in names, found, "the host code of web libraries", get)


def _tools() -> Iterator[Check]:
    for name, purpose, get in (
        ("emcc", "building runtime.wasm (only developers need it)", "apt install emscripten, or the emsdk"),
        ("wasm-opt", "making runtime.wasm small (only developers need it)", "apt install binaryen"),
        ("node", "building and testing the JavaScript side (only developers need it)", "Node 20.19 or newer"),
        ("npm", "building the JavaScript side (only developers need it)", "comes with Node"),
        ("g++", "building native libraries and device plugins", "apt install g++"),
    ):
        yield Check(
            "Tools", name, shutil.which(name) is not None, _first_line(name, "--version"), purpose, f"Get it: {get}."
        )


def _built_parts() -> Iterator[Check]:
    from webcompile.assets import runtime_wasm
    from webcompile.browser.server import runtime_web_folder
    from webcompile.serve.static import site_folder

    for name, find, purpose in (
        ("runtime.wasm", runtime_wasm, "compiling for and running in a browser"),
        ("web runtime", runtime_web_folder, "--device webgpu"),
        ("chat page", site_folder, "`webcompile site`"),
    ):
        yield _located("Built parts", name, find, purpose)


def _located(group: str, name: str, find: Callable[[], Path], purpose: str) -> Check:
    try:
        return Check(group, name, True, str(find()), purpose)
    except WebcompileError as error:
        return Check(group, name, False, "", purpose, error.hint or error.message)
    except ImportError as error:
        return Check(group, name, False, "", purpose, str(error))


def _browsers() -> Iterator[Check]:
    executable = _located("Browser", "Chromium", browser_executable, "--device webgpu")
    yield executable
    if not executable.ok:
        return
    for adapter in ADAPTERS:
        name, purpose = f"WebGPU adapter {adapter}", f"--device webgpu --adapter {adapter}"
        get = "See about://gpu in the browser." if adapter == "swiftshader" else "It needs a GPU and its Vulkan driver."
        try:
            version, answer = query_adapter(adapter)
        except WebcompileError as error:
            yield Check("Browser", name, False, error.message, purpose, error.hint)
            continue
        # A browser that is asked for hardware and has none may answer with its software adapter all the same.
        is_real = answer is not None and (
            adapter != "hardware" or not re.search("swiftshader|llvmpipe", answer["name"], re.I)
        )
        features = [name for name in ("shader-f16", "subgroups") if answer and name in answer["features"]]
        found = f"{answer['name']} in {version}, {' and '.join(features) or 'no f16, no subgroups'}" if answer else ""
        yield Check("Browser", name, is_real, found, purpose, get)


def query_adapter(adapter: str) -> tuple[str, dict[str, Any] | None]:
    """Version of the browser, and what `page_adapter` says. Raises tool_missing when there is no browser that starts."""
    from webcompile.browser.server import blank_files, serve

    with serve(blank_files()) as url, launch(adapter) as browser:
        page = browser.new_page()
        page.goto(url)
        return browser.version, page_adapter(page)


def _drivers() -> Iterator[Check]:
    named = os.environ.get("VK_DRIVER_FILES") or os.environ.get("VK_ICD_FILENAMES")
    if named:
        vulkan = named.split(os.pathsep)
    else:
        folders = (Path("/usr/share/vulkan/icd.d"), Path("/etc/vulkan/icd.d"), Path("/usr/local/share/vulkan/icd.d"))
        vulkan = [path.name for folder in folders for path in sorted(folder.glob("*.json"))]
    opencl = [path.name for path in sorted(Path("/etc/OpenCL/vendors").glob("*.icd"))]
    for name, found, get in (
        ("Vulkan", vulkan, "the GPU's driver, or mesa-vulkan-drivers"),
        ("OpenCL", opencl, "the GPU's driver, or pocl-opencl-icd"),
    ):
        yield Check("Drivers", name, bool(found), ", ".join(found), f"{name} devices", f"Get it: {get}.")
    if sys.platform == "linux":
        nvidia = _first_line("nvidia-smi", "-L")
        yield Check("Drivers", "NVIDIA", bool(nvidia), nvidia, "CUDA devices", "Get it: NVIDIA's driver.")


def _devices() -> Iterator[Check]:
    """What engines can run on, natively: each device of each kind, after a small kernel on it."""
    from webcompile import backends
    from webcompile.engine.runtimes import check_runtime

    yield _computing("cpu", "cpu", 0, processor_name())
    for target, (kind, _) in backends.TARGETS.items():
        try:
            found = backends.find_devices(target)
        except WebcompileError as error:
            yield Check("Devices", target, False, error.message, f"--device {target}", error.hint)
            continue
        if not found:
            get = "Install the device's driver."
            yield Check("Devices", target, False, "no device", f"--device {target}", get)
        for index, device in enumerate(found):
            yield _computing(f"{target}:{index}", kind, device.index, _describe(device))
    for target in ("cuda", "metal", "rocm"):
        try:
            check_runtime(target)
        except WebcompileError as error:
            yield Check("Devices", target, False, error.message, f"--device {target}", error.hint)
        else:
            yield _computing(target, target, 0, "")


def _describe(device: NativeDevice) -> str:
    limits = device.limits
    return ", ".join(
        [
            f"{device.name} ({device.driver or device.api})",
            f"buffers up to {limits['max_buffer_bytes'] / 2**20:.0f} MiB",
            f"{limits['max_workgroup_threads']} threads and {limits['max_shared_bytes'] // 1024} KiB a workgroup",
            " and ".join(device.features) or "no f16, no subgroups",
        ]
    )


def _computing(name: str, kind: str, index: int, description: str) -> Check:
    """Says whether a kernel gave the right answer on a device of TVM's, in a process of its own: drivers may crash."""
    command = [sys.executable, "-m", "webcompile.build.probe", kind, str(index)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        ok, reason = done.returncode == 0, (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        ok, reason = False, "no answer in two minutes"
    verdict = "a kernel gave the right answer" if ok else f"a kernel failed: {reason}"
    found = ", ".join(part for part in (description, verdict) if part)
    return Check("Devices", name, ok, found, f"--device {name}", "Update its driver, or use another device.")


def _machine() -> Iterator[Check]:
    yield Check("Machine", "processor", True, f"{processor_name()}, {os.cpu_count()} cores", "compiling")
    free = shutil.disk_usage(Path.cwd()).free
    get = "Free some: a 1 B model takes about 5 GB on its way from download to artifact."
    yield Check("Machine", "disk", free > 5e9, f"{free / 1e9:.0f} GB free here", "compiling larger models", get)


def _first_line(*command: str) -> str:
    """First line that a program prints; empty if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout.strip().splitlines() or [""])[0]
