"""The runtime and linked models in Node: results, errors, and what WebGPU is asked to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import tirx as T

from tests.test_build import write_model
from tests.test_link import build
from webcompile import assets
from webcompile.contracts import ABI_VERSION
from webcompile.errors import WebcompileError
from webcompile.link import link_model

LOADER = Path(__file__).with_name("wasm_runtime.mjs")


@T.prim_func
def serial_add(x: T.handle, total: T.handle, scale: T.float32):
    T.func_attr({"tirx.is_scheduled": True})
    n = T.int64()
    source = T.match_buffer(x, (n, 16), "float32")
    target = T.match_buffer(total, (n, 16), "float32")
    for i in range(n):
        for j in range(16):
            target[i, j] = target[i, j] + source[i, j] * scale


@T.prim_func
def parallel_add(x: T.handle, total: T.handle, scale: T.float32):
    T.func_attr({"tirx.is_scheduled": True})
    n = T.int64()
    source = T.match_buffer(x, (n, 16), "float32")
    target = T.match_buffer(total, (n, 16), "float32")
    for i in T.thread_binding(n, thread="blockIdx.x"):
        for j in T.thread_binding(16, thread="threadIdx.x"):
            target[i, j] = target[i, j] + source[i, j] * scale


def example(add: Any) -> Any:
    """`main`: softmax of a linear layer, its parameters a tuple, the batch `n` symbolic. `accumulate`: `add` in place."""
    builder = relax.BlockBuilder()
    n = tvm.tirx.Var("n", "int64")
    x = relax.Var("x", relax.TensorType((n, 8), "float32"))
    layer = [relax.TensorType((8, 16), "float32"), relax.TensorType((16,), "float32")]
    params = relax.Var("params", relax.TupleType(layer))
    with builder.function("main", [x, params]):
        with builder.dataflow():
            weight = builder.emit(relax.TupleGetItem(params, 0))
            bias = builder.emit(relax.TupleGetItem(params, 1))
            hidden = builder.emit(relax.op.add(relax.op.matmul(x, weight), bias))
            result = builder.emit_output(relax.op.nn.softmax(hidden, axis=-1))
        builder.emit_func_output(result)
    source = relax.Var("source", relax.TensorType((n, 16), "float32"))
    total = relax.Var("total", relax.TensorType((n, 16), "float32"))
    with builder.function("accumulate", [source, total]):
        kernel = builder.add_func(add, "add_in_place")
        scale = relax.prim_value(tvm.tirx.FloatImm("float32", 0.5))
        call = relax.op.call_tir_inplace(kernel, [source, total, scale], [1], relax.TensorType((n, 16), "float32"))
        builder.emit_func_output(builder.emit(call))
    return builder.get()


@pytest.fixture(scope="module")
def runtime() -> Path:
    return assets.runtime_wasm()


@pytest.fixture(scope="module")
def cpu_model(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cpu") / "model.wasm"
    link_model(build(example(serial_add)), runtime, path)
    return path


@pytest.fixture(scope="module")
def webgpu_model(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("webgpu") / "model.wasm"
    link_model(build(example(parallel_add), "webgpu"), runtime, path)
    return path


def in_node(runtime: Path, model: Path | None, body: str, **data: Any) -> Any:
    """Runs JavaScript with `runtime` (see wasm_runtime.mjs) and `data` in scope; its return value comes back as JSON."""
    script = f"""
        import {{ Runtime, recordingGpu }} from '{LOADER.as_uri()}';
        const data = {json.dumps(data)};
        const attempt = (action) => {{ try {{ return action(); }} catch (error) {{ return error.message; }} }};
        const runtime = new Runtime({json.dumps(str(runtime))}, {json.dumps(model and str(model))});
        const result = (() => {{ {body} }})();
        process.stdout.write(JSON.stringify(result));
    """
    run = subprocess.run(["node", "--input-type=module", "-e", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def example_data(batch: int) -> tuple[dict[str, list[float]], np.ndarray]:
    random = np.random.default_rng(batch)
    x, weight, bias = (random.standard_normal(shape, np.float32) for shape in ((batch, 8), (8, 16), (16,)))
    exponentials = np.exp(x @ weight + bias)
    data = {"x": x.ravel().tolist(), "weight": weight.ravel().tolist(), "bias": bias.tolist()}
    return data, exponentials / exponentials.sum(-1, keepdims=True)


CALL_MAIN = """
    const main = (batch, x, weight, bias) => {
        const inputs = [runtime.floats([batch, 8], x), runtime.floats([8, 16], weight), runtime.floats([16], bias)];
        const params = runtime.call('wc_tuple', inputs.slice(1), 2);
        const result = runtime.invoke('main', inputs[0], params);
        const values = runtime.readFloats(result, batch * 16);
        [...inputs, params, result].forEach((handle) => runtime.call('wc_release', handle));
        return values;
    };
"""


@pytest.mark.parametrize("batch", [1, 5])
def test_a_model_on_the_cpu_equals_numpy(runtime: Path, cpu_model: Path, batch: int) -> None:
    data, expected = example_data(batch)
    body = CALL_MAIN + "runtime.call('wc_open', 1); return main(data.batch, data.x, data.weight, data.bias);"
    np.testing.assert_allclose(in_node(runtime, cpu_model, body, batch=batch, **data), expected.ravel(), rtol=1e-5)


def test_an_argument_is_changed_in_place(runtime: Path, cpu_model: Path) -> None:
    body = """
        runtime.call('wc_open', 1);
        const total = runtime.floats([2, 16], Array(32).fill(1));
        for (let i = 0; i < 3; i++) runtime.invoke('accumulate', runtime.floats([2, 16], Array(32).fill(4)), total);
        return runtime.readFloats(total, 32);
    """
    assert in_node(runtime, cpu_model, body) == [7.0] * 32


def test_errors_name_the_cause_and_leave_the_instance_usable(runtime: Path, cpu_model: Path) -> None:
    data, expected = example_data(2)
    body = (
        CALL_MAIN
        + """
        const errors = { early: attempt(() => runtime.call('wc_function', 'main')) };
        runtime.call('wc_open', 1);
        const x = runtime.floats([16, 1], data.x);
        const params = runtime.call('wc_tuple', [runtime.floats([8, 16], []), runtime.floats([16], [])], 2);
        errors.shape = attempt(() => runtime.invoke('main', x, params));
        errors.type = attempt(() => runtime.invoke('main', x, x));
        errors.count = attempt(() => runtime.invoke('main', x));
        errors.name = attempt(() => runtime.invoke('encode', x));
        errors.handle = attempt(() => runtime.call('wc_release', 999));
        errors.dtype = attempt(() => runtime.tensor(1, 'float33x', [1]));
        errors.size = attempt(() => runtime.tensor(1, 'float32', [65536, 65536]));
        errors.memory = attempt(() => runtime.tensor(1, 'float32', [1023, 1024, 1024]));
        errors.again = attempt(() => runtime.call('wc_open', 1));
        errors.device = attempt(() => runtime.tensor(2, 'float32', [1]));
        return { errors, values: main(2, data.x, data.weight, data.bias) };
    """
    )
    result = in_node(runtime, cpu_model, body, **data)
    errors = result["errors"]
    assert errors["early"] == "RuntimeError: the model is not open"
    assert errors["shape"].startswith("RuntimeError: ")
    assert "shape[1] mismatch" in errors["shape"] and "param=x" in errors["shape"]
    assert errors["type"].startswith("TypeError: ") and "expect a Tuple" in errors["type"]
    assert "expects 2 arguments (x, params), but 1 arguments were provided" in errors["count"]
    assert errors["name"] == "AttributeError: the model has no function encode"
    assert errors["handle"] == "ValueError: handle 999 is not in use"
    assert "float33x" in errors["dtype"]
    assert errors["size"].startswith("OutOfMemory: a tensor of 1.71799e+10 bytes")
    assert errors["memory"].startswith("OutOfMemory: ")
    assert errors["again"] == "RuntimeError: the model is open already"
    assert errors["device"] == "ValueError: unknown device type 2"
    np.testing.assert_allclose(result["values"], expected.ravel(), rtol=1e-5)


def test_opening_without_a_model_says_so(runtime: Path) -> None:
    error = in_node(runtime, None, "return attempt(() => runtime.call('wc_open', 1));")
    assert error.startswith("RuntimeError: no model is linked")


def test_versions_agree(runtime: Path) -> None:
    assert in_node(runtime, None, "return runtime.exports.wc_abi_version();") == ABI_VERSION


def test_memory_does_not_grow_with_calls(runtime: Path, cpu_model: Path) -> None:
    data, _ = example_data(4)
    body = (
        CALL_MAIN
        + """
        runtime.call('wc_open', 1);
        const sizes = [];
        for (let i = 0; i < 3000; i++) {
            main(1 + i % 4, data.x.slice(0, 8 * (1 + i % 4)), data.weight, data.bias);
            if (i % 1000 === 0) sizes.push(runtime.call('wc_tensor', 1, 'int8', [1], 1), runtime.call('wc_alloc', 16));
        }
        return sizes;
    """
    )
    handles = in_node(runtime, cpu_model, body, **data)[::2]
    assert max(handles) < 20


WEBGPU_MAIN = """
    runtime.call('wc_open', 15);
    const calls = runtime.gpu.calls;
    const [x, weight, bias] = [[3, 8], [8, 16], [16]].map((shape) => runtime.tensor(15, 'float32', shape));
    const params = runtime.call('wc_tuple', [weight, bias], 2);
    const ids = [x, weight, bias].map((tensor) => runtime.call('wc_tensor_data', tensor));
    const kernels = calls.filter((call) => call[0] === 'kernel');
    const main = () => { calls.length = 0; return runtime.invoke('main', x, params); };
"""


def test_every_kernel_is_declared_while_the_model_opens(runtime: Path, webgpu_model: Path) -> None:
    kernels = in_node(runtime, webgpu_model, WEBGPU_MAIN + "return kernels;")
    assert [kernel[1] for kernel in kernels] == list(range(len(kernels))) and len(kernels) >= 3
    for _, _, name, wgsl, info in kernels:
        assert f"fn {name}(" in wgsl
        assert info["name"] == name
        assert any(tag.startswith("paramWriteAccess:") for tag in info["launch_param_tags"])
        bindings = wgsl.count("var<storage")
        assert bindings == info["arg_types"].count("handle")


def test_launches_carry_buffers_scalars_and_grid(runtime: Path, webgpu_model: Path) -> None:
    body = WEBGPU_MAIN + "const result = main(); return [ids, kernels, calls, runtime.call('wc_tensor_data', result)];"
    (x, weight, bias), kernels, calls, result = in_node(runtime, webgpu_model, body)
    allocated = {call[1] for call in calls if call[0] == "alloc"}
    launches = [call for call in calls if call[0] == "launch"]
    assert {x, weight, bias} <= set(launches[0][2])
    assert result in launches[-1][2] and result in allocated
    for _, kernel, buffers, scalars, grid in launches:
        assert set(buffers) <= allocated | {x, weight, bias}
        assert scalars == [3]  # n, by which the kernels are compiled
        assert min(grid) >= 1
        types = kernels[kernel][4]["arg_types"]
        assert (len(buffers), len(scalars)) == (types.count("handle"), len(types) - types.count("handle"))


def test_float_scalars_are_bit_patterns(runtime: Path, webgpu_model: Path) -> None:
    body = (
        WEBGPU_MAIN
        + """
        const [source, total] = [0, 0].map(() => runtime.tensor(15, 'float32', [70000, 16]));
        calls.length = 0;
        const result = runtime.invoke('accumulate', source, total);
        const [a, b, c] = [source, total, result].map((tensor) => runtime.call('wc_tensor_data', tensor));
        return [a, b, c, calls.filter((call) => call[0] === 'launch')];
    """
    )
    source, total, result, launches = in_node(runtime, webgpu_model, body)
    assert result == total
    ((_, _, buffers, scalars, grid),) = launches
    assert sorted(buffers) == [source, total]
    half = int(np.float32(0.5).view(np.int32))
    assert sorted(scalars) == sorted([half, 70000])
    assert grid == [70000, 1, 1]  # more than WebGPU takes along an axis: JavaScript splits


def test_a_steady_run_allocates_no_gpu_buffers(runtime: Path, webgpu_model: Path) -> None:
    body = (
        WEBGPU_MAIN
        + """
        const allocations = [];
        for (let i = 0; i < 5; i++) {
            runtime.call('wc_release', main());
            allocations.push(calls.filter((call) => call[0] === 'alloc').length);
        }
        [x, weight, bias, params].forEach((handle) => runtime.call('wc_release', handle));
        return [allocations, ids, calls.filter((call) => call[0] === 'free').map((call) => call[1])];
    """
    )
    allocations, ids, freed = in_node(runtime, webgpu_model, body)
    assert allocations[0] > 0 and allocations[2:] == [0, 0, 0]
    assert sorted(freed) == sorted(ids)


def test_a_full_gpu_is_an_error_that_passes(runtime: Path, webgpu_model: Path) -> None:
    body = (
        WEBGPU_MAIN
        + """
        runtime.gpu.outOfMemory = true;
        const errors = [attempt(() => runtime.tensor(15, 'float32', [4, 4])), attempt(() => main())];
        runtime.gpu.outOfMemory = false;
        return [...errors, main() > 0];
    """
    )
    tensor, call, recovered = in_node(runtime, webgpu_model, body)
    assert tensor == "OutOfMemory: the GPU has no room for a buffer of 64 bytes"
    assert call.startswith("OutOfMemory: ")
    assert recovered


def test_cpu_results_of_gpu_tensors_are_refused(runtime: Path, webgpu_model: Path) -> None:
    body = WEBGPU_MAIN + "return attempt(() => runtime.invoke('main', runtime.tensor(15, 'float16', [3, 8]), params));"
    assert "expect Tensor with dtype float32 but get float16" in in_node(runtime, webgpu_model, body)


def test_compiling_needs_no_emscripten(tmp_path: Path) -> None:
    assets.install_runtime()
    (tmp_path / "bin").mkdir()
    environment = {**os.environ, "PATH": str(tmp_path / "bin"), "WEBCOMPILE_CACHE": str(tmp_path / "cache")}
    write_model(tmp_path / "model")
    command = [sys.executable, "-m", "webcompile", str(tmp_path / "model"), "--quantization", "q4f32_1", "-o"]
    run = subprocess.run([*command, str(tmp_path / "out")], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert list((tmp_path / "out").glob("*.wasm"))
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").glob("runtime-*"))


def test_without_runtime_and_emscripten_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("WEBCOMPILE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(assets, "PACKAGED_RUNTIME", tmp_path / "runtime.wasm")
    with pytest.raises(WebcompileError, match="emcc was not found") as info:
        assets.runtime_wasm()
    assert info.value.code == "tool_missing" and "install emscripten" in info.value.hint


def test_a_stale_packaged_runtime_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packaged = tmp_path / "runtime.wasm"
    packaged.write_bytes(assets.runtime_wasm().read_bytes())
    monkeypatch.setattr(assets, "PACKAGED_RUNTIME", packaged)
    assert assets.runtime_wasm() == packaged
    packaged.write_bytes(packaged.read_bytes().replace(b'"source": "', b'"source": "0'))
    monkeypatch.setenv("WEBCOMPILE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WebcompileError, match="must be built"):
        assets.runtime_wasm()
