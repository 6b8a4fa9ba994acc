"""From a compiled model to its `model.wasm`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from webcompile.contracts import SYSTEM_LIB_PREFIX
from webcompile.errors import WebcompileError
from webcompile.link.files import write_atomically
from webcompile.link.side_module import link_side_module


def export_objects(executable: Any) -> list[bytes]:
    """The relocatable objects of a `relax.build` result: host code, and the VM's code with the shaders.

    The module must have been built with the attribute `system_lib_prefix` and a wasm32 host target.
    """
    found: list[bytes] = []

    def collect(_output: str, files: list[str], **_options: object) -> None:
        found.extend(Path(file).read_bytes() for file in files)

    collect.object_format = "o"  # type: ignore[attr-defined]  # how TVM asks a linker what it wants
    with tempfile.TemporaryDirectory(prefix="webcompile-link-") as folder:
        executable.export_library(str(Path(folder) / "unused.wasm"), fcompile=collect, workspace_dir=folder)
    if not any(f"{SYSTEM_LIB_PREFIX}__tvm_ffi__library_bin".encode() in data for data in found):
        raise WebcompileError(
            "link_failed",
            "the module was not compiled as a system library for wasm",
            f'build it with the attribute system_lib_prefix = "{SYSTEM_LIB_PREFIX}" and a wasm32 host target',
        )
    return found


def link_model(executable: Any, runtime: Path, output: Path) -> int:
    """Links a `relax.build` result against runtime.wasm, writes the side module and returns its size in bytes.

    The file is written aside and renamed, so that nobody sees half of it.

    Raises:
        WebcompileError: `link_failed`; an import that the runtime lacks is named.
    """
    module = link_side_module(export_objects(executable), runtime.read_bytes())
    write_atomically(output, module)
    return len(module)
