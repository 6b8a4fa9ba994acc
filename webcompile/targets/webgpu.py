"""WebGPU in a browser: WGSL kernels, host code for wasm32."""

from __future__ import annotations

import tvm

from webcompile.kernels.builder import Schedule
from webcompile.targets import TargetSpec, VariantSpec

WASM_HOST = "wasm32-unknown-unknown-wasm"

_SCHEDULE = Schedule(gpu=True, threads=32, lanes=1, row_tile=4, token_tile=4, attention_splits=16)


def target() -> TargetSpec:
    """See TargetSpec. Limits are those every WebGPU device has."""
    device = {"kind": "webgpu", "max_num_threads": 256, "max_shared_memory_per_block": 16384, "thread_warp_size": 1}
    host = {"kind": "llvm", "mtriple": WASM_HOST, "vector-width": 128}
    return TargetSpec(
        name="webgpu",
        tvm_target=tvm.target.Target(device, host=host),
        host=WASM_HOST,
        library="model.webgpu.{variant}.wasm",
        variants=(
            VariantSpec("f16", "float16", ("shader-f16",), _SCHEDULE),
            VariantSpec("f32", "float32", (), _SCHEDULE),
        ),
    )
