"""The native devices of this machine, for tests: all drivers that compute on the CPU, whatever the environment says."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from webcompile import backends
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
def native_devices() -> dict[str, str]:
    """Short name of a device ("llvmpipe", "swiftshader", "pthread") → its name for `Engine`, of those that are there."""
    named: dict[str, str] = {}
    for target in backends.TARGETS:
        try:
            with software_drivers():
                found = backends.find_devices(target)
        except WebcompileError:
            continue
        for index, device in enumerate(found):
            named.setdefault(device.name.replace("-", " ").split()[0].lower(), f"{target}:{index}")
    return named


def device_params(*names: str) -> list[pytest.param]:
    """A test parameter for each name that `Engine` takes. One whose driver is missing is skipped, and says so."""
    named = native_devices()
    return [
        pytest.param(named.get(name, name), id=name, marks=[] if name in named else pytest.mark.skip(f"no driver {name}"))
        for name in names
    ]
