"""Packages for other systems: objects, header, example and link line; on this system the example runs."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import pytest
import tvm
import tvm_ffi

from tests.test_build import build, write_model
from webcompile.cli.main import main
from webcompile.engine import Engine, SamplingParams
from webcompile.engine.artifact import Artifact
from webcompile.errors import WebcompileError

TABLE = "webcompile___tvm_ffi__library_bin"
KERNELS = "__tvm_ffi_webcompile_attention_decode"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("package") / "model")


def package(model: Path, output: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The printed summary."""
    assert main(["package", str(model), "-o", str(output), "--json", *options]) == 0
    summary: dict[str, str] = json.loads(capsys.readouterr().out)
    return summary


def elf(data: bytes) -> tuple[str, set[str]]:
    """Processor and global symbols of a 64-bit relocatable ELF file."""
    assert data[:6] == b"\x7fELF\2\1"
    kind, machine = struct.unpack_from("<HH", data, 16)
    assert kind == 1
    (start,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + i * size) for i in range(count)]
    names = set()
    for section in sections:
        if section[1] != 2:  # the symbol table
            continue
        texts = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], 24):
            name, info, _, defined = struct.unpack_from("<IBBH", data, at)
            if info >> 4 and defined:
                names.add(text(data, texts + name))
    return {62: "x86_64", 183: "aarch64"}[machine], names


def macho(data: bytes) -> tuple[str, set[str]]:
    """The same of a Mach-O object, and the platform that it is for."""
    magic, cpu, _, kind, commands = struct.unpack_from("<5I", data)
    assert (magic, cpu, kind) == (0xFEEDFACF, 0x0100000C, 1)
    at, names, platform = 32, set(), ""
    for _ in range(commands):
        command, size = struct.unpack_from("<2I", data, at)
        if command == 2:
            symbols, count, texts = struct.unpack_from("<3I", data, at + 8)
            for entry in range(symbols, symbols + 16 * count, 16):
                name, type_, section = struct.unpack_from("<IBB", data, entry)
                if type_ & 1 and section:
                    names.add(text(data, texts + name).removeprefix("_"))
        elif command == 0x32:
            platform = {1: "macos", 2: "ios"}[struct.unpack_from("<I", data, at + 8)[0]]
        at += size
    return f"arm64 {platform}", names


def coff(data: bytes) -> tuple[str, set[str]]:
    """The same of a COFF object."""
    machine, _, _, symbols, count = struct.unpack_from("<HHIII", data)
    texts, names, i = symbols + 18 * count, set(), 0
    while i < count:
        at = symbols + 18 * i
        short = data[at : at + 8]
        name = (
            text(data, texts + struct.unpack("<I", short[4:])[0]) if short[:4] == bytes(4) else short.rstrip(b"\0").decode()
        )
        _, section, _, storage, auxiliary = struct.unpack_from("<IhHBB", data, at + 8)
        if storage == 2 and section > 0:
            names.add(name)
        i += 1 + auxiliary
    return {0x8664: "x86_64"}[machine], names


def symbols_of(data: bytes) -> tuple[str, set[str]]:
    formats = {b"\x7fELF": elf, b"\xcf\xfa\xed\xfe": macho}
    return formats.get(data[:4], coff)(data)


def text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


@pytest.mark.parametrize(
    ("host", "target", "processor"),
    [
        ("android", "opencl", "aarch64"),
        ("ios", "metal", "arm64 ios"),
        ("macos", "metal", "arm64 macos"),
        ("windows", "vulkan", "x86_64"),
        ("aarch64-unknown-linux-gnu", "cpu", "aarch64"),
    ],
)
def test_objects_have_the_format_of_their_system(
    model: Path, capsys: pytest.CaptureFixture[str], host: str, target: str, processor: str
) -> None:
    out = model.parent / host
    summary = package(model, out, "--host", host, "--target", target, "--quantization", "q4f32_1", capsys=capsys)
    data = (out / summary["object"]).read_bytes()
    found, names = symbols_of(data)
    assert found == processor
    assert {TABLE, KERNELS} <= names
    marks = {"metal": b"kernel void webcompile_attention_decode_kernel(", "opencl": b"__kernel void", "vulkan": b"@compute"}
    assert marks.get(target, b"\0") in data
    artifact = Artifact.open(out)
    artifact.verify()
    assert [variant.host for variant in artifact.manifest.variants] == [summary["host"]]
    assert summary["object"] in (out / "link.txt").read_text()
    readme = (out / "README.txt").read_text()
    assert summary["object"] in readme
    assert (out / "link.txt").read_text().strip() in readme
    assert "$" not in readme.replace("$TVM_FFI", "").replace("$TVM", "").replace("$ANDROID_NDK", "")
    check_header(out)
    with pytest.raises(WebcompileError) as raised:
        Engine(out, device=target)
    assert raised.value.code == "target_unsupported"


def check_header(folder: Path) -> None:
    """That C and C++ compilers take the header, and that it lists the weights."""
    params = [param.name for param in Artifact.open(folder).manifest.variants[0].params]
    source = '#include "webcompile_model.h"\nint main(void) { return webcompile_params[0][0] + webcompile_eos_tokens[0]; }\n'
    for language in ("c", "c++"):
        command = ["g++" if language == "c++" else "gcc", "-x", language, "-Wall", "-Wextra", "-Werror", "-pedantic"]
        command += ["-fsyntax-only", f"-I{folder}", "-"]
        done = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    header = (folder / "webcompile_model.h").read_text()
    assert f"#define WEBCOMPILE_NUM_PARAMS {len(params)}" in header
    assert [line.strip(' ",') for line in header.splitlines() if line.startswith('    "')] == params


def test_the_example_gives_the_tokens_of_the_engine(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    options = ["--target", "cpu", "--quantization", "q4f32_1"]
    package(model, out, "--host", "linux", *options, capsys=capsys)
    roots = {name: str(Path(module.__file__).parent) for name, module in (("TVM", tvm), ("TVM_FFI", tvm_ffi))}
    line = (out / "link.txt").read_text()
    for name, root in sorted(roots.items(), reverse=True):
        line = line.replace(f"${name}", root)
    subprocess.run(line.split(), cwd=out, check=True)
    prompt = list(range(3, 25))
    monkeypatch.setenv("LD_LIBRARY_PATH", ":".join(f"{root}/lib" for root in roots.values()))
    done = subprocess.run(
        [out / "example", out, "20", *map(str, prompt)], capture_output=True, text=True, check=True, timeout=120
    )
    build(model, tmp_path / "native")
    with Engine(tmp_path / "native") as engine:
        greedy = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
        assert tuple(map(int, done.stdout.split())) == engine.answer(prompt, greedy).token_ids


def test_cuda_for_windows_embeds_machine_code(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\nprintf "MACHINE CODE" > "$2"\n')
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    summary = package(model, tmp_path / "out", "--host", "windows", "--target", "cuda", capsys=capsys)
    data = (tmp_path / "out" / summary["object"]).read_bytes()
    assert coff(data)[0] == "x86_64"
    assert b"MACHINE CODE" in data
    assert b"__global__" not in data
    assert "cl /std:c++17" in (tmp_path / "out" / "link.txt").read_text()


def test_packaging_again_takes_over_what_is_there(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        summary = package(model, tmp_path / "out", "--host", "ios", capsys=capsys)
        assert summary["variant"] == "f16"
        assert (tmp_path / "out" / "example.cc").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "android", "--target", "metal"], "got target 'metal' for android, expected one of opencl, vulkan, cpu"),
        (["--host", "amiga"], "got host 'amiga'"),
        (["--host", "ios", "--variant", "f8"], "got variant 'f8'"),
        (["--host", "linux", "--target", "cpu", "--quantization", "q4f16_1"], "has no variant"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["package", str(model), "-o", str(tmp_path / "out"), *options]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert "_unsupported]" in err
    assert not (tmp_path / "out").exists()


def test_another_object_takes_the_place_of_the_first_and_the_weights_stay(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    package(model, out, "--host", "ios", capsys=capsys)
    weights = (out / "params_shard_0.bin").stat().st_ino
    summary = package(model, out, "--host", "macos", "--variant", "f16", capsys=capsys)
    assert [path.name for path in out.glob("*.o")] == [summary["object"]]
    assert (out / "params_shard_0.bin").stat().st_ino == weights


def test_an_artifact_with_libraries_is_no_package(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(model, tmp_path / "out", quantization="q4f16_1")
    assert main(["package", str(model), "-o", str(tmp_path / "out"), "--host", "macos"]) == 1
    assert "expected one object alone" in capsys.readouterr().err
