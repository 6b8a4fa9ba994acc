"""The device that an engine runs on, found by the name that users give it: a target, and a number among several."""

from __future__ import annotations

from dataclasses import dataclass

from webcompile import backends
from webcompile.engine.machine import processor_name
from webcompile.errors import WebcompileError


@dataclass(frozen=True)
class Device:
    """What variants are chosen for, and what TVM calls it (`kind`, `index`)."""

    target: str
    kind: str
    index: int
    name: str
    features: tuple[str, ...] = ()
    adapters: str = "any"
    """"hardware", or "software" if it computes on the CPU: see `manifest.Variant`."""


PROCESSOR = Device("cpu", "cpu", 0, processor_name())


def find_device(name: str) -> Device:
    """The device `name`: a target such as "cpu", "vulkan" or "opencl", or "opencl:1" for the second of its kind.

    Raises:
        WebcompileError: `target_unsupported` for a target that no native engine runs, `device_missing`,
            `driver_missing`, or `tool_missing` if a plugin has to be built and cannot be.
    """
    target, _, number = name.partition(":")
    index = int(number) if number.isdecimal() else 0
    if number and not number.isdecimal():
        raise WebcompileError("request_invalid", f"device: expected a name such as opencl or opencl:1, got {name!r}")
    if target not in backends.TARGETS:
        return _processor(target, index)
    devices = backends.find_devices(target)
    if index >= len(devices):
        found = ", ".join(f"{target}:{i} ({device.name})" for i, device in enumerate(devices))
        raise WebcompileError(
            "device_missing",
            f"there is no device {target}:{index} on this machine; found: {found or 'none'}",
            "Install the device's driver, or choose another device. `webcompile doctor` lists them.",
        )
    device = devices[index]
    adapters = "software" if device.is_software else "hardware"
    return Device(target, device.kind, device.index, device.name, device.features, adapters)


def _processor(target: str, index: int) -> Device:
    if target == "cpu" and index > 0:
        message = f"there is one device cpu, which uses all processors; got cpu:{index}"
        raise WebcompileError("device_missing", message, "Leave the number out.")
    # Whatever else there may be a variant of is refused with the artifact's list of them.
    return PROCESSOR if target == "cpu" else Device(target, target, index, target)
