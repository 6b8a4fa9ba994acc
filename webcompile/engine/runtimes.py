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
    """Raises target_unsupported if this machine has no runtime for `target`, or no device of that kind."""
    if target not in _HINTS:
        return
    missing = tvm.get_global_func(f"device_api.{target}", allow_missing=True) is None
    if missing or not tvm.device(target).exist:
        what = "no runtime" if missing else "no device"
        raise WebcompileError("target_unsupported", f"this machine has {what} for {target}", _HINTS[target])
