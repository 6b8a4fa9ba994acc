"""TVM's own web runtime, compiled by emscripten from the sources in TVM's wheels: `web/emcc/*.cc` and all they include."""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import tvm
import tvm_ffi

from webcompile import assets
from webcompile.errors import WebcompileError
from webcompile.link import build_runtime

UNITS = ("webgpu_runtime", "tvmjs_support", "wasm_runtime")
COMPILE_FLAGS = ("-O3", "-std=c++17", "-Wno-ignored-attributes")
"""Those of TVM's Makefile."""

_INCLUDE = Path(__file__).resolve().parent / "include"
"""Headers that TVM's sources need and its wheels lack, beside those of our own runtime."""


@functools.cache
def toolchain() -> str:
    """What decides the result of emscripten: versions and headers, as one hash. Raises tool_missing without emscripten."""
    compiler = build_runtime.emscripten_version()
    if compiler is None:
        raise WebcompileError("tool_missing", "emcc was not found", "apt-get install emscripten")
    digest = hashlib.sha256(repr((compiler, version("apache-tvm"), version("apache-tvm-ffi"), COMPILE_FLAGS)).encode())
    for folder in (_INCLUDE, build_runtime.SOURCE_DIR / "include"):
        for path in sorted(folder.rglob("*.h")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def objects() -> list[Path]:
    """The compiled units, from the cache or built into it: two minutes."""
    folder = assets.cache_folder() / f"stock-runtime-{toolchain()}"
    found = [folder / f"{unit}.o" for unit in UNITS]
    if not all(path.exists() for path in found):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="stock-runtime-") as name:
            _build(Path(name), folder)
    return found


def _build(tree: Path, output: Path) -> None:
    """Lays the wheels' files out as TVM's repository does, since they include each other by relative paths."""
    tvm_root, ffi_root = Path(tvm.__file__).parent, Path(tvm_ffi.__file__).parent
    own = build_runtime.SOURCE_DIR / "include"
    # A copy: through a link, "../../.." would lead out of the tree.
    shutil.copytree(tvm_root / "src" / "runtime", tree / "src" / "runtime")
    shutil.copytree(tvm_root / "web" / "emcc", tree / "web" / "emcc")
    for folder in (own / "support", _INCLUDE / "support"):
        shutil.copytree(folder, tree / "src" / "support", dirs_exist_ok=True)
    shutil.copytree(_INCLUDE / "3rdparty", tree / "3rdparty")
    (tree / "3rdparty" / "tvm-ffi").symlink_to(ffi_root)
    includes = [tree, own, tvm_root / "include", ffi_root / "include", ffi_root / "3rdparty" / "dlpack" / "include"]
    flags = [*COMPILE_FLAGS, *(f"-I{path}" for path in includes)]
    for unit in UNITS:
        print(f"[stock] compiling {unit}.cc", file=sys.stderr, flush=True)
        partial = output / f"{unit}.partial.o"
        run_emcc([*flags, "-c", str(tree / "web" / "emcc" / f"{unit}.cc"), "-o", str(partial)])
        partial.replace(output / f"{unit}.o")


def run_emcc(arguments: Sequence[str]) -> None:
    """Runs emscripten; raises internal with what it said."""
    result = subprocess.run(["emcc", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise WebcompileError("internal", f"emcc failed with status {result.returncode}:\n{result.stderr[-4000:]}")
