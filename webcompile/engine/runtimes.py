"""Which kinds of device TVM can run on here, beside those that our own plugins open."""

from __future__ import annotations

import tvm

from webcompile.errors import WebcompileError

_HINTS = {
    "cuda": "It comes with TVM for Linux and Windows and loads where NVIDIA's driver is installed.",
    "metal": "It comes with TVM for macOS on Apple silicon. For an app: webcompile package MODEL --host ios --target metal",
    "rocm": "TVM's packages have none. On AMD's GPUs use --target vulkan.",
}


def check_runtime(target: str) -> None:
    """Raises target_unsupported or driver_missing if TVM has no runtime for `target` here, device_missing if no device."""
    if target not in _HINTS:
        return
    if tvm.get_global_func(f"device_api.{target}", allow_missing=True) is None:
        code = "driver_missing" if target == "cuda" else "target_unsupported"
        raise WebcompileError(code, f"this machine has no runtime for {target}", _HINTS[target])
    if not tvm.device(target).exist:
        raise WebcompileError("device_missing", f"this machine has no device for {target}", _HINTS[target])
