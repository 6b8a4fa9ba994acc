"""The native devices of this machine, for tests: all drivers that compute on the CPU, whatever the environment says."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from webcompile import backends
from webcompile.backends import NativeDevice
from webcompile.errors import WebcompileError

SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
"""The driver inside Debian's Chromium, which Vulkan does not find by itself."""
POCL_DEVICES = "pthread pthread"
"""Makes PoCL offer the CPU twice."""


@contextmanager
def software_drivers() -> Iterator[None]:
    """Drivers read the environment once; browsers that other tests start see what they would see without us."""
    ours = {"VK_ADD_DRIVER_FILES": str(SWIFTSHADER), "POCL_DEVICES": POCL_DEVICES}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


@functools.cache
def find_native_devices(target: str) -> list[NativeDevice]:
    """The devices of a target with all software drivers; none if its driver or its plugin's compiler is missing."""
    try:
        with software_drivers():
            return backends.find_devices(target)
    except WebcompileError:
        return []


def short_name(device: NativeDevice) -> str:
    """ "llvmpipe" for "llvmpipe (LLVM 15.0.6, 256 bits)"."""
    return device.name.replace("-", " ").split()[0].lower()


@functools.cache
def engine_names() -> dict[str, str]:
    """Short name of a device → its name for `Engine`; of two alike, the first."""
    named: dict[str, str] = {}
    for target in backends.TARGETS:
        for index, device in enumerate(find_native_devices(target)):
            named.setdefault(short_name(device), f"{target}:{index}")
    return named


def device_params(*names: str) -> list[Any]:
    """A test parameter for each short name: what `Engine` takes. One whose driver is missing is skipped, and says so."""
    named = engine_names()
    return [
        pytest.param(named.get(name, name), id=name, marks=[] if name in named else pytest.mark.skip(f"no driver {name}"))
        for name in names
    ]
