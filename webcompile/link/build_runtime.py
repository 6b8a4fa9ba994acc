"""Builds runtime.wasm from `wasm/` and the sources in TVM's wheels. Needs emscripten; works in a source checkout only.

Users of a release never come here: the result ships in the package (`webcompile/assets.py` decides).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from webcompile.contracts import ABI_VERSION, RUNTIME_EXPORTS, RUNTIME_IMPORTS
from webcompile.errors import WebcompileError
from webcompile.link import wasm

SOURCE_DIR = Path(__file__).resolve().parent.parent.parent / "wasm"
"""Exists in a source checkout only."""

BUILD_INFO_SECTION = "webcompile.runtime"
"""Custom section with the ABI version and the hash of the sources, as JSON."""

UNITS = ("tvm_runtime.cc", "allocator.cc", "webgpu.cc", "abi.cc")

WASI_IMPORTS = (
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_close",
    "fd_read",
    "fd_seek",
    "fd_write",
    "proc_exit",
)
"""All that the runtime may ask of `wasi_snapshot_preview1`."""

# What the code that TVM generates may call. Names that are missing here show as link errors of the model.
TVM_EXPORTS = (
    *("TVMFFIEnvModLookupFromImports", "TVMFFIEnvModRegisterSystemLibSymbol", "TVMFFIErrorSetRaisedFromCStr"),
    *("TVMFFIErrorSetRaisedFromCStrParts", "TVMFFIErrorSetRaised", "TVMFFIErrorMoveFromRaised"),
    *("TVMFFIFunctionCall", "TVMFFIFunctionGetGlobal", "TVMFFIHandleInitOnce", "TVMFFIHandleDeinitOnce"),
    *("TVMFFIAnyViewToOwnedAny", "TVMFFIObjectIncRef", "TVMFFIObjectDecRef", "TVMFFIEnvGetStream"),
    *("TVMBackendAllocWorkspace", "TVMBackendFreeWorkspace", "TVMBackendParallelLaunch", "TVMBackendParallelBarrier"),
    *("TVMBackendAnyListMoveFromPackedReturn", "TVMBackendAnyListResetItem", "TVMBackendAnyListSetPackedArg"),
)
_MATH = (
    *("acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "copysign", "cos", "cosh", "erf", "exp"),
    *("exp10", "exp2", "expm1", "fabs", "floor", "fma", "fmax", "fmin", "fmod", "hypot", "ldexp", "lgamma", "log", "log10"),
    *("log1p", "log2", "nearbyint", "nextafter", "pow", "rint", "round", "sin", "sinh", "sqrt", "tan", "tanh", "tgamma"),
    "trunc",
)
LIBRARY_EXPORTS = (
    *_MATH,
    *(f"{name}f" for name in _MATH),
    *("malloc", "calloc", "realloc", "free", "memcpy", "memmove", "memset", "memcmp", "abort"),
    *("__extendhfsf2", "__truncsfhf2", "__truncdfhf2"),  # float16
    *("__multi3", "__divti3", "__udivti3", "__modti3", "__umodti3", "__ashlti3", "__lshrti3", "__ashrti3"),  # int128
)

COMPILE_FLAGS = (
    # -Oz saves 60 kB of 360 (gzip) and takes seven times as long for a call of the VM.
    *("-O2", "-std=c++17", "-fwasm-exceptions", "-fno-rtti", "-fvisibility=hidden"),
    *("-ffunction-sections", "-fdata-sections", "-Wall", "-Wextra"),
    # Older than wasm exceptions, so every engine that runs this at all has them.
    *("-mbulk-memory", "-msign-ext", "-mnontrapping-fptoint", "-mmutable-globals"),
    *("-DTVM_LOG_DEBUG=0", "-DTVM_LOG_CUSTOMIZE=1", "-DTVM_FFI_USE_LIBBACKTRACE=0", "-D__PRETTY_FUNCTION__=__func__"),
    # TVM's macros would export every function of its API; the names above are what a model can need.
    *("-DTVM_DLL=", "-DTVM_FFI_DLL=", "-DTVM_FFI_DLL_EXPORT=", "-DTVM_RUNTIME_DLL=", "-DTVM_RUNTIME_DLL_EXPORT="),
)
LINK_FLAGS = (
    *("-O2", "-fwasm-exceptions", "--no-entry", "-mbulk-memory"),
    *("-sSTANDALONE_WASM=1", "-sALLOW_MEMORY_GROWTH=1", "-sALLOW_TABLE_GROWTH=1"),
    *("-sINITIAL_MEMORY=33554432", "-sMAXIMUM_MEMORY=4294967296", "-sTOTAL_STACK=1048576"),
    # wc_gpu_* are undefined on purpose; `check_interface` looks at the result.
    *("-sERROR_ON_UNDEFINED_SYMBOLS=0", "-sWARN_ON_UNDEFINED_SYMBOLS=0"),
    *("-Wl,--growable-table", "-Wl,--export=__stack_pointer"),
)


def source_hash() -> str:
    """A hash of all that decides the result, except emscripten's version."""
    digest = hashlib.sha256()
    for package in ("apache-tvm", "apache-tvm-ffi"):
        digest.update(f"{package} {importlib.metadata.version(package)}\n".encode())
    for path in sorted(path for path in SOURCE_DIR.rglob("*") if path.suffix in {".cc", ".h"}):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    digest.update(repr((UNITS, TVM_EXPORTS, LIBRARY_EXPORTS, COMPILE_FLAGS, LINK_FLAGS)).encode())
    return digest.hexdigest()[:16]


def emscripten_version() -> str | None:
    """The version of emscripten on the PATH."""
    emcc = shutil.which("emcc")
    if emcc is None:
        return None
    first_line = subprocess.run([emcc, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return first_line.split(")", 1)[-1].strip().split(" ")[0]


def build_runtime() -> bytes:
    """Compiles and links the runtime: minutes."""
    import tvm
    import tvm_ffi

    tvm_root, ffi_root = Path(tvm.__file__).parent, Path(tvm_ffi.__file__).parent
    include_dirs = (SOURCE_DIR / "generated", SOURCE_DIR / "include")
    # TVM's files include "../support/x.h" and "../../support/x.h", which the wheel lacks. Searched from these two folders,
    # both are wasm/include/support/x.h. The wheels' folders are system folders: their warnings are not ours.
    detours = (SOURCE_DIR / "include/tvm", SOURCE_DIR / "include/tvm/support")
    wheel_dirs = [tvm_root / "include", tvm_root / "src"]
    wheel_dirs += [ffi_root / "include", ffi_root / "src", ffi_root / "3rdparty/dlpack/include"]
    flags = [*COMPILE_FLAGS]
    flags += [f"-I{path}" for path in (*include_dirs, *detours)]
    for path in wheel_dirs:
        flags += ["-isystem", str(path)]
    # Error messages carry __FILE__: keep this machine's paths out of them.
    flags += [f"-fmacro-prefix-map={tvm_root.parent}/=", f"-fmacro-prefix-map={SOURCE_DIR.parent}/="]

    started, source = time.monotonic(), source_hash()  # the hash of what is compiled, even if it is edited meanwhile
    with tempfile.TemporaryDirectory(prefix="webcompile-runtime-") as folder:
        objects = [Path(folder) / f"{unit}.o" for unit in UNITS]

        def compile_unit(job: tuple[str, Path]) -> None:
            _progress(f"compiling {job[0]}")
            _run(["emcc", *flags, "-c", str(SOURCE_DIR / job[0]), "-o", str(job[1])])

        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(compile_unit, zip(UNITS, objects, strict=True)))
        _progress("linking runtime.wasm")
        target = Path(folder) / "runtime.wasm"
        exports = (*(function.name for function in RUNTIME_EXPORTS), *TVM_EXPORTS, *LIBRARY_EXPORTS)
        export_list = ",".join(f"_{name}" for name in exports)
        _run(["emcc", *LINK_FLAGS, f"-sEXPORTED_FUNCTIONS={export_list}", *map(str, objects), "-o", str(target)])
        module = target.read_bytes()
    check_interface(module)
    info = {"abi_version": ABI_VERSION, "source": source, "emscripten": emscripten_version()}
    module += wasm.encode_custom_section(BUILD_INFO_SECTION, json.dumps(info, sort_keys=True).encode())
    _progress(f"built runtime.wasm: {len(module)} bytes in {time.monotonic() - started:.0f} s")
    return module


def check_interface(module: bytes) -> None:
    """Raises unless the module imports and exports what the contract says."""
    interface = wasm.read_interface(module)
    allowed = {f"env.{function.name}" for function in RUNTIME_IMPORTS}
    allowed |= {f"wasi_snapshot_preview1.{name}" for name in WASI_IMPORTS}
    unexpected = sorted(set(interface.imports) - allowed)
    expected = {function.name for function in RUNTIME_EXPORTS} | {*TVM_EXPORTS, *LIBRARY_EXPORTS, "_initialize"}
    missing = sorted(expected - set(interface.functions))
    missing += sorted({"memory", "__indirect_function_table", "__stack_pointer"} - interface.others)
    if unexpected or missing:
        raise WebcompileError(
            "link_failed",
            f"runtime.wasm imports {', '.join(unexpected) or 'nothing'} unexpectedly"
            f" and lacks the exports {', '.join(missing) or '(none)'}",
        )


def _progress(message: str) -> None:
    print(f"[runtime.wasm] {message}", file=sys.stderr, flush=True)


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.stderr.strip():
        print(result.stderr, file=sys.stderr)
    if result.returncode:
        raise WebcompileError("internal", f"{command[0]} failed with status {result.returncode}:\n{result.stderr[-4000:]}")
