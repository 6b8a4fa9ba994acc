"""The processors that host code is compiled for: this machine's, or by triple one that is not here."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import tvm

from webcompile.contracts import native_host
from webcompile.errors import WebcompileError


@dataclass(frozen=True)
class Host:
    """What runs the code around the kernels."""

    name: str
    """`Variant.host` in the manifest: a triple, or `native_host()`."""
    attributes: dict[str, str]
    """Its description for TVM."""

    def tvm_target(self, **attributes: Any) -> Any:
        """TVM's description of this host alone."""
        return tvm.target.Target({"kind": "llvm", **self.attributes, **attributes})


SHORT_NAMES = {
    "android": "aarch64-linux-android",
    "ios": "arm64-apple-ios16.0",
    "macos": "arm64-apple-macosx13.0",
    "windows": "x86_64-pc-windows-msvc",
    "linux": "x86_64-unknown-linux-gnu",
}
"""What `--host` takes beside triples. Each is the processor that most of its devices have."""

_SYSTEMS = {"android": "android", "ios": "ios", "macosx": "macos", "darwin": "macos", "windows": "windows", "linux": "linux"}
"""Part of a triple → its system. The first that is found counts: Android's triples have "linux" too."""
_PROCESSORS = ("x86_64", "aarch64", "arm64")


@functools.cache
def this_machine() -> Host:
    """The processor that this runs on, with all of its instructions."""
    return Host(native_host(), {"mcpu": tvm.target.codegen.llvm_get_system_cpu()})


def get_host(name: str) -> Host:
    """The host of a short name or a triple such as aarch64-linux-android. Raises target_unsupported naming what there is."""
    triple = SHORT_NAMES.get(name, name)
    processor, _, rest = triple.partition("-")
    if processor not in _PROCESSORS or system_of(triple) is None or not rest:
        raise WebcompileError(
            "target_unsupported",
            f"got host {name!r}, expected one of {', '.join(SHORT_NAMES)} or a triple",
            f"A triple names a processor ({', '.join(_PROCESSORS)}) and a system, as in {SHORT_NAMES['android']}.",
        )
    # The oldest processor that runs the system; elsewhere what every processor of that name can do.
    cpu = {"mcpu": "apple-a11" if "ios" in triple else "apple-m1"} if "apple" in triple else {}
    return Host(triple, {"mtriple": triple, **cpu})


def system_of(triple: str) -> str | None:
    """The short name of a triple's operating system; None for those that are not known."""
    return next((system for part, system in _SYSTEMS.items() if part in triple), None)
