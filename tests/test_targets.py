"""Targets whose devices are not here: what is compiled for them, and what is said where it cannot run."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tvm
from tvm import relax

from tests.test_build import build, write_model
from tests.test_models import TINY
from webcompile.build.library import Library, libraries
from webcompile.engine.engine import Engine
from webcompile.errors import WebcompileError
from webcompile.link import cuda, device_code
from webcompile.link.library_bin import compile_cuda_module, rewrite_modules
from webcompile.models import architecture
from webcompile.pipeline import pipeline
from webcompile.quantize.scheme import get_scheme
from webcompile.targets import get_target

MSL = Path(__file__).resolve().parent / "msl"
CLANG = next((path for name in ("clang", "clang-16", "clang-15", "clang-14") if (path := shutil.which(name))), None)
FATBIN_MAGIC = struct.pack("<I", 0xBA55ED50)


def tiny(target: str, host: str | None = None, **config: Any) -> list[Library]:
    built = architecture({"model_type": "llama", "eos_token_id": 2, **TINY, **config})
    return libraries(built.config, get_scheme("q4f16_1"), get_target(target, host))


def device_module(library: Library) -> Any:
    """The kernels of a library as TVM holds them before they are linked."""
    module, *_ = library._exported
    passes = pipeline({"s": 512}, is_system_library=False)
    with (
        tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}),
        device_code(library.target.name, library.variant.architectures),
    ):
        executable = relax.build(module, library.variant.tvm_target, relax_pipeline=passes)
    (host,) = executable.mod.imports
    (kernels,) = host.imports
    return kernels


@pytest.fixture
def fake_nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that writes down how it was called and gives the same code for everything; the path of what it wrote."""
    (tmp_path / "cuda" / "bin").mkdir(parents=True)
    script, log = tmp_path / "cuda/bin/nvcc", tmp_path / "calls"
    lines = (
        f'echo "$@" >> {log}',
        'while [ "$1" != -o ]; do shift; done',
        'printf "MACHINE CODE" > "$2"',
        f'cat "$3" >> {log}',
    )
    script.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    script.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    return log


def test_cuda_kernels_are_compiled_for_named_architectures_and_embedded(tmp_path: Path, fake_nvcc: Path) -> None:
    library = tiny("cuda")[0]
    library.compile(tmp_path / library.file)
    code = (tmp_path / library.file).read_bytes()
    assert code.startswith(b"\x7fELF")
    assert b"MACHINE CODE" in code
    assert b"__global__" not in code, "the source was left in the library"
    calls = fake_nvcc.read_text()
    assert [f"code={name}" for name in ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "compute_90")] == re.findall(
        r"code=(?!arch)\w+", calls.splitlines()[0]
    )
    assert "__shfl_xor_sync(" in calls
    assert "subgroupShuffleXor" not in calls


def test_nvcc_takes_the_kernels(tmp_path: Path) -> None:
    try:
        cuda.find_nvcc()
    except WebcompileError as error:
        pytest.skip(str(error))
    for library in tiny("cuda", head_dim=64, hidden_size=64):
        source = device_module(library).inspect_source()
        assert cuda.compile_fatbin(source, ("sm_80",)).startswith(FATBIN_MAGIC)


def test_a_missing_cuda_compiler_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda.os, "access", lambda path, mode: False)
    output = tmp_path / "out"
    with pytest.raises(WebcompileError) as raised:
        build(write_model(tmp_path / "model"), output, target="cuda")
    assert raised.value.code == "tool_missing"
    assert "pip install nvidia-cuda-nvcc==13.* nvidia-nvvm==13.*" in raised.value.hint
    assert not output.exists()


def test_what_nvcc_says_is_told(fake_nvcc: Path) -> None:
    (Path(os.environ["CUDA_HOME"]) / "bin" / "nvcc").write_text("#!/bin/sh\necho 'no such instruction' >&2\nexit 1\n")
    with pytest.raises(WebcompileError, match="no such instruction") as raised:
        cuda.compile_fatbin("", ("sm_80",))
    assert raised.value.code == "link_failed"


def test_only_modules_of_a_kind_are_rewritten() -> None:
    def sized(data: bytes) -> bytes:
        return struct.pack("<Q", len(data)) + data

    tree = struct.pack("<5Q", 4, 0, 1, 2, 2) + struct.pack("<3Q", 2, 1, 2)
    kernels = struct.pack("<Q", 1) + sized(b"k") * 2 + struct.pack("<Q", 1) + b"\3\x40\1\0"
    kernels += struct.pack("<Q", 1) + sized(b"blockIdx.x") + struct.pack("<QI", 1, 0)
    source = sized(b"cuda") + kernels + sized(b"code")

    def table(module: bytes) -> bytes:
        return sized(tree + sized(b"vm") + sized(b"x") + sized(b"_lib") + sized(b"cuda") + sized(module))

    def rewrite(module: bytes) -> bytes:
        return compile_cuda_module(module, lambda text: text.upper().encode() + b"!")

    compiled = sized(b"fatbin") + kernels + sized(b"CODE!")
    assert rewrite_modules(table(source), "cuda", rewrite) == table(compiled)
    assert rewrite_modules(table(compiled), "cuda", rewrite) == table(compiled)
    assert rewrite_modules(table(source), "metal", lambda module: b"") == table(source)


@pytest.mark.skipif(CLANG is None, reason="no clang")
@pytest.mark.parametrize("head_dim", [10, 64])
def test_metal_kernels_are_right_in_type(head_dim: int) -> None:
    """By clang, with a stand-in for Metal's header: names, arguments and address spaces, no more."""
    for library in tiny("metal", head_dim=head_dim, hidden_size=60 if head_dim == 10 else 64):
        kernels = re.split(r"(?=^// Function: )", device_module(library).inspect_source(), flags=re.MULTILINE)[1:]
        assert len(kernels) > 10
        assert any("simd_shuffle_xor" in kernel for kernel in kernels)
        check(as_cpp(kernels))


def as_cpp(kernels: list[str]) -> str:
    """Metal's language in C++ as far as a header cannot: variables of a threadgroup, casts of vectors, one union for all."""
    source = "\n".join(kernels)
    source = re.sub(r"^( +)threadgroup (?=\w+ \w+\[)", r"\1static threadgroup ", source, flags=re.MULTILINE)
    source = re.sub(r"\((half4|float4)\)", r"to_\1 % ", source)
    unions = re.findall(r"union __TVMArgUnion \{.*?\};", source, flags=re.DOTALL)
    return source.replace(unions[0], "").replace("#include <metal_stdlib>", f"#include <metal_stdlib>\n{unions[0]}", 1)


def check(source: str) -> None:
    command = [str(CLANG), "--target=aarch64-linux-gnu", "-x", "c++", "-std=c++17", "-fsyntax-only", "-ffreestanding"]
    command += ["-nostdinc", f"-I{MSL}", "-Wno-unknown-attributes", "-Werror=conversion-null", "-"]
    done = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]


@pytest.mark.skipif(CLANG is None, reason="no clang")
@pytest.mark.parametrize(
    "wrong",
    [
        "float f(float x) { return subgroupShuffleXor(x, 1u); }",
        "float f(threadgroup float* x) { device float* y = x; return y[0]; }",
        "float f(device float* x) { thread float* y = x; return y[0]; }",
        "int f(half x) { return as_type<int>(x); }",
    ],
)
def test_the_stand_in_refuses_what_metal_does(wrong: str) -> None:
    with pytest.raises(AssertionError, match="error"):
        check(f"#include <metal_stdlib>\nusing namespace metal;\n{wrong}\n")


def test_metal_sources_are_in_the_library(tmp_path: Path) -> None:
    library = tiny("metal")[0]
    library.compile(tmp_path / library.file)
    assert b"kernel void webcompile_attention_decode_kernel(" in (tmp_path / library.file).read_bytes()


def test_rocm_kernels_become_code_for_the_architecture() -> None:
    for library in tiny("rocm"):
        assembly = device_module(library).inspect_source("asm")
        assert "gfx1100" in assembly
        assert re.findall(r"^(webcompile_\w+_kernel):", assembly, flags=re.MULTILINE)


@pytest.mark.parametrize("target", ["rocm", "metal"])
def test_a_device_that_is_not_here_is_a_typed_error(tmp_path: Path, target: str) -> None:
    build(write_model(tmp_path / "model"), tmp_path / "out", target=target)
    with pytest.raises(WebcompileError) as raised:
        Engine(tmp_path / "out", device=target)
    assert raised.value.code == "target_unsupported"
    assert target in raised.value.message


def test_an_unknown_host_is_refused() -> None:
    for name in ("haiku", "riscv64-linux-gnu", "x86_64"):
        with pytest.raises(WebcompileError, match="android") as raised:
            get_target("cpu", name)
        assert raised.value.code == "target_unsupported"
    with pytest.raises(WebcompileError, match="webgpu"):
        get_target("webgpu", "android")
