"""Native devices beyond those of TVM's wheel: OpenCL, and WebGPU through wgpu-native (Vulkan, Metal, Direct3D 12).

Each is a plugin in C++ (`native/`) that registers a device and a loader of its kernels with TVM's runtime.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webcompile.backends import build
from webcompile.errors import ERROR_CODES, WebcompileError

TARGETS = {"vulkan": ("webgpu", "vulkan"), "opencl": ("opencl", None)}
"""Target → the plugin that runs it, and which of the plugin's devices do, by their API (None: all).

The libraries of target "vulkan" hold WGSL, so that the plugin runs them on "metal" and "d3d12" devices as well.
"""

OPENCL_VARIABLE = "WEBCOMPILE_OPENCL"
"""Environment variable that names another OpenCL library."""

_OPENCL_LIBRARIES = {"win32": "OpenCL.dll", "darwin": "/System/Library/Frameworks/OpenCL.framework/OpenCL"}
_HINTS = {
    "driver_missing": "Install the device's driver. `webcompile doctor` says what is there and what is not.",
    "device_missing": "`webcompile doctor` lists the devices of this machine.",
    "device_lost": "Open the engine again. Drivers reset a device that takes too long over one kernel, or that crashed.",
    "out_of_memory": "Use a smaller model or context window (max_context_tokens), or close what else uses the device.",
    "internal": "This is a bug in webcompile or the driver: please report it.",
}


@dataclass(frozen=True)
class NativeDevice:
    """A device as TVM knows it (`kind`, `index`) and as its driver describes it."""

    kind: str
    index: int
    name: str
    driver: str
    api: str
    """"vulkan", "metal" or "d3d12"; OpenCL's version."""
    is_software: bool
    """It computes on the CPU."""
    features: tuple[str, ...]
    limits: dict[str, int]


def find_devices(target: str) -> list[NativeDevice]:
    """Devices of a target of `TARGETS`, best first; their place in this list is the number that users give.

    Raises:
        WebcompileError: `tool_missing` if the plugin cannot be built, `driver_missing` if no driver could be loaded.
    """
    kind, api = TARGETS[target]
    return [device for device in list_devices(kind) if api in (None, device.api)]


def list_devices(kind: str) -> list[NativeDevice]:
    """All devices of a plugin. Raises as `find_devices`."""
    load(kind)
    with driver_errors():
        described = _function(f"webcompile.{kind}.devices")()
    return [
        NativeDevice(
            kind,
            index,
            str(of["name"]),
            str(of["driver"]),
            str(of["api"]),
            bool(of["is_software"]),
            tuple(map(str, of["features"])),
            {str(name): int(value) for name, value in of["limits"].items()},
        )
        for index, of in enumerate(described)
    ]


def counters(device: NativeDevice) -> dict[str, int]:
    """What the plugin counts on a device: dispatches, submits, buffers and bytes in use and kept for reuse."""
    with driver_errors():
        counted = _function(f"webcompile.{device.kind}.counters")(device.index)
    return {str(name): int(value) for name, value in counted.items()}


def lose(device: NativeDevice) -> None:
    """Ends a device as a crash would. What uses it fails with device_lost; whoever opens it next gets a new one."""
    _function(f"webcompile.{device.kind}.lose")(device.index)


def make_runnable(module: Any) -> None:
    """Gives a module that TVM has just compiled kernels that run, in place of their source, without a library in between."""
    kernels = list(module.imports)
    module.clear_imports()
    for compiled in kernels:
        module.import_module(_function(f"webcompile.{compiled.kind}.runnable")(compiled))


@functools.cache
def load(kind: str) -> None:
    """Builds the plugin if need be, loads it and its driver's library. Raises tool_missing or driver_missing."""
    driver = str(build.wgpu_library()) if kind == "webgpu" else _opencl_library()
    _register(build.plugin(kind))
    with driver_errors():
        _function(f"webcompile.{kind}.open_library")(driver)


def autoload() -> None:
    """Entry point of TVM (group `tvm.backends`): registers the plugins that are built. It never builds one."""
    for kind in build.KINDS:
        path = build.built_plugin(kind)
        if path is not None:
            _register(path)


@contextmanager
def driver_errors() -> Iterator[None]:
    """Makes what a plugin throws a WebcompileError: the kind of its error is our code."""
    try:
        yield
    except RuntimeError as error:
        code = getattr(getattr(error, "__tvm_ffi_error__", None), "kind", "")
        if code not in ERROR_CODES:
            raise
        raise WebcompileError(code, str(error), _HINTS.get(code, "")) from error


@functools.cache
def _register(plugin: Path) -> ctypes.CDLL:
    import tvm  # noqa: F401  its runtime comes first

    return ctypes.CDLL(str(plugin))


def _opencl_library() -> str:
    return os.environ.get(OPENCL_VARIABLE) or _OPENCL_LIBRARIES.get(sys.platform, "libOpenCL.so.1")


def _function(name: str) -> Any:
    import tvm_ffi

    return tvm_ffi.get_global_func(name)
