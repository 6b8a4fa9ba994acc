"""WebGPU in a browser: WGSL kernels, host code for wasm32.

Adapters that compute on the CPU (SwiftShader, llvmpipe) want few threads with much work each: barriers and shared
memory cost them 3 to 10 times what they save. Real GPUs want loads of neighbouring threads side by side.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tvm

from webcompile.kernels.builder import Schedule
from webcompile.targets import TargetSpec, VariantSpec
from webcompile.targets.schedules import HARDWARE

WASM_HOST = "wasm32-unknown-unknown-wasm"

_HARDWARE_SUBGROUPS = dataclasses.replace(HARDWARE, subgroup=4)
_SOFTWARE = Schedule(
    gpu=True, threads=16, lanes=1, row_tile=8, token_tile=4, subgroup=0, unroll_heads=False, attention_threads=16
)
_SOFTWARE_SUBGROUPS = dataclasses.replace(_SOFTWARE, subgroup=4)


def target() -> TargetSpec:
    """See TargetSpec."""
    host = tvm.target.Target({"kind": "llvm", "mtriple": WASM_HOST, "vector-width": 128})
    return TargetSpec(name="webgpu", host=WASM_HOST, library="model.webgpu.{variant}.wasm", variants=wgsl_variants(host))


def wgsl_variants(host: Any) -> tuple[VariantSpec, ...]:
    """What WGSL is made into, for any host: with and without half floats and subgroups, for GPUs and for software."""
    plain, subgroups = _device(host), _device(host, supports_subgroups=True, thread_warp_size=32)
    return (
        VariantSpec("f16-subgroups", "float16", ("shader-f16", "subgroups"), subgroups, _HARDWARE_SUBGROUPS, "hardware"),
        VariantSpec("f16", "float16", ("shader-f16",), plain, HARDWARE, "hardware"),
        VariantSpec("f32", "float32", (), plain, HARDWARE, "hardware"),
        VariantSpec("f32-software-subgroups", "float32", ("subgroups",), subgroups, _SOFTWARE_SUBGROUPS, "software"),
        VariantSpec("f32-software", "float32", (), plain, _SOFTWARE, "software"),
    )


def _device(host: Any, thread_warp_size: int = 1, **attributes: Any) -> Any:
    """Limits are those that every WebGPU device has."""
    device = {"kind": "webgpu", "max_num_threads": 256, "max_shared_memory_per_block": 16384}
    return tvm.target.Target({**device, "thread_warp_size": thread_warp_size, **attributes}, host=host)
