"""The device plugins themselves: memory, copies, large grids, threads, and what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tvm

from tests.kernel_benches import Bench, variants_of
from tests.native_devices import find_native_devices, short_name
from webcompile import backends
from webcompile.backends import NativeDevice, build
from webcompile.errors import WebcompileError
from webcompile.kernels.norm import Normalization, normalize

DEVICES = [
    pytest.param(device, id=f"{target}-{short_name(device)}-{index}")
    for target in backends.TARGETS
    for index, device in enumerate(find_native_devices(target))
]
TARGET_OF = {kind: target for target, (kind, _) in backends.TARGETS.items()}


def tvm_device(device: NativeDevice) -> Any:
    return tvm.device(device.kind, device.index)


def use(device: NativeDevice, tokens: int, seed: int = 0, width: int = 4) -> None:
    """Runs a kernel and checks what it gives."""
    variants = variants_of(TARGET_OF[device.kind])
    bench = Bench(device, variants["f32-software"])
    x = np.random.default_rng(seed).standard_normal((tokens, width)).astype(np.float32)
    kernel = normalize(bench.schedule, Normalization(1e-5), width, "float32")
    (*_, y) = bench.run(kernel, x, np.ones(width, np.float32), np.empty_like(x))
    np.testing.assert_allclose(y, x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-5), rtol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_describes_itself(device: NativeDevice) -> None:
    assert device.name
    assert device.is_software, "on machines of tests"
    assert device.limits["max_workgroup_threads"] >= 256
    assert device.limits["max_shared_bytes"] >= 16384
    assert tvm_device(device).exist
    assert not tvm.device(device.kind, 99).exist


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [1, 3, 4, 1000, 20_000_003])
def test_bytes_come_back_as_they_went(device: NativeDevice, size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    on_device = tvm.runtime.tensor(data, tvm_device(device))
    copy = tvm.runtime.empty((size,), "uint8", tvm_device(device))
    if size % 4 == 0:
        on_device.copyto(copy)
        assert np.array_equal(copy.numpy(), data)
    assert np.array_equal(on_device.numpy(), data)


@pytest.mark.parametrize("device", DEVICES)
def test_a_view_is_written_and_read_alone(device: NativeDevice) -> None:
    whole = tvm.runtime.tensor(np.arange(32, dtype=np.float16), tvm_device(device))
    view = whole._create_view((3,), "float16", 8)
    view.copyfrom(np.full(3, -1, np.float16))
    expected = np.arange(32, dtype=np.float16)
    expected[4:7] = -1
    assert np.array_equal(whole.numpy(), expected)
    assert np.array_equal(whole._create_view((3,), "float16", 12).numpy(), expected[6:9])


@pytest.mark.parametrize("device", DEVICES)
def test_more_workgroups_than_a_dimension_holds(device: NativeDevice) -> None:
    use(device, 1_100_000)


@pytest.mark.parametrize("device", DEVICES)
def test_memory_stays_flat(device: NativeDevice) -> None:
    """4,000 buffers of 1 MB, filled and freed, many more than fit the pool at once."""
    process, data, before = psutil.Process(), np.zeros(1 << 20, np.uint8), backends.counters(device)
    resident = []
    for _ in range(40):
        held = [tvm.runtime.tensor(data, tvm_device(device)) for _ in range(100)]
        assert backends.counters(device)["buffers"] == before["buffers"] + 100
        held[0].numpy()
        held.clear()
        resident.append(process.memory_info().rss)
    after = backends.counters(device)
    assert after["buffers"] == before["buffers"]
    assert after["buffer_bytes"] == before["buffer_bytes"]
    assert after["pooled_bytes"] <= 64 << 20
    assert max(resident[20:]) - max(resident[:20]) < 100 << 20, "4 GB went through"


@pytest.mark.parametrize("device", DEVICES)
def test_threads_do_not_mix(device: NativeDevice) -> None:
    def work(seed: int) -> None:
        for round_ in range(10):
            use(device, 100 + seed, seed=10 * seed + round_)

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work, seed) for seed in range(6)]:
            done.result()


@pytest.mark.parametrize("device", DEVICES)
def test_a_buffer_beyond_all_memory_is_refused_and_the_device_goes_on(device: NativeDevice) -> None:
    with pytest.raises(WebcompileError) as caught, backends.driver_errors():
        tvm.runtime.empty((1 << 42,), "uint8", tvm_device(device))
    assert caught.value.code == "out_of_memory"
    assert "max_context_tokens" in caught.value.hint
    use(device, 10)


@pytest.mark.parametrize("device", DEVICES)
def test_a_lost_device_is_told_from_the_one_after_it(device: NativeDevice) -> None:
    use(device, 10)  # compiled on the device that is about to go
    old = tvm.runtime.tensor(np.ones((10, 4), np.float32), tvm_device(device))
    backends.lose(device)
    with pytest.raises(WebcompileError) as caught, backends.driver_errors():
        old.numpy()
    assert caught.value.code == "device_lost"
    use(device, 10)
    with pytest.raises(RuntimeError):  # memory of the device before and the one after
        old.copyto(tvm.runtime.empty((10, 4), "float32", tvm_device(device)))
    del old, caught
    assert backends.counters(device)["buffers"] == 0


def python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints: drivers are looked for once in a process."""
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=root, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


FIND = """
from webcompile.engine.device import find_device
from webcompile.errors import WebcompileError
try:
    print(find_device({!r}).name)
except WebcompileError as error:
    print(error.code, bool(error.hint), find_device("cpu").target)
"""


@pytest.mark.parametrize(
    ("device", "environment", "code"),
    [
        ("vulkan", {"VK_DRIVER_FILES": "/nowhere.json", "VK_ICD_FILENAMES": "/nowhere.json"}, "device_missing"),
        ("vulkan", {"WGPU_LIB_PATH": "/nowhere/libwgpu.so"}, "driver_missing"),
        ("opencl", {"OCL_ICD_VENDORS": "/nowhere"}, "device_missing"),
        ("opencl", {"WEBCOMPILE_OPENCL": "/nowhere/libOpenCL.so"}, "driver_missing"),
        ("opencl:7", {}, "device_missing"),
        ("cpu:1", {}, "device_missing"),
        ("opencl", {"CXX": "/nowhere/c++", "WEBCOMPILE_CACHE": "{empty}"}, "tool_missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_is_missing_is_named_and_the_process_goes_on(
    device: str, environment: dict[str, str], code: str, tmp_path: Path
) -> None:
    changed = {name: value.format(empty=tmp_path) for name, value in environment.items()}
    assert python(FIND.format(device), **changed) == f"{code} True cpu"


def test_tvm_finds_the_plugins_that_are_built(tmp_path: Path) -> None:
    """As TVM does when it is imported, by the entry point."""
    show = "from webcompile.backends import autoload, build; autoload(); import tvm; "
    show += "print(*(tvm.get_global_func('device_api.' + kind, allow_missing=True) is not None for kind in build.KINDS))"
    for kind in build.KINDS:
        build.plugin(kind)
    assert python(show) == "True True"
    assert python(show, WEBCOMPILE_CACHE=str(tmp_path)) == "False False"
    assert list(tmp_path.iterdir()) == [], "importing TVM builds nothing"
