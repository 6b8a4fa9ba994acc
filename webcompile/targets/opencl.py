"""OpenCL C, on this machine through its OpenCL loader (`webcompile.backends`), host code for its CPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import tvm

from webcompile.kernels.builder import Schedule
from webcompile.targets import TargetSpec, VariantSpec
from webcompile.targets.hosts import this_machine
from webcompile.targets.schedules import HARDWARE

# Adreno and Mali: a thread has a few dozen registers before they spill, and on Mali shared memory is ordinary memory.
_MOBILE = dataclasses.replace(HARDWARE, lanes=8, attention_threads=64, product_tile=None, token_tile=4)
# Drivers that compute on the CPU, such as PoCL, run the threads of a workgroup as a loop and vectorize it.
_SOFTWARE = Schedule(
    gpu=True, threads=16, lanes=1, row_tile=4, token_tile=4, subgroup=0, unroll_heads=False, attention_threads=16
)


def target() -> TargetSpec:
    """See TargetSpec. Limits are those that desktop drivers have; "mobile" stays within Adreno's and Mali's."""
    desktop, mobile = _device(256, 32768), _device(128, 16384)
    return TargetSpec(
        name="opencl",
        host=this_machine().name,
        library="model.opencl.{variant}.so",
        variants=(
            VariantSpec("f16-mobile", "float16", ("cl_khr_fp16", "mobile"), mobile, _MOBILE, "hardware"),
            VariantSpec("f32-mobile", "float32", ("mobile",), mobile, _MOBILE, "hardware"),
            VariantSpec("f16", "float16", ("cl_khr_fp16",), desktop, HARDWARE, "hardware"),
            VariantSpec("f32", "float32", (), desktop, HARDWARE, "hardware"),
            VariantSpec("f32-software", "float32", (), desktop, _SOFTWARE, "software"),
        ),
    )


def _device(max_threads: int, max_shared_bytes: int) -> Any:
    device = {"kind": "opencl", "max_num_threads": max_threads, "max_shared_memory_per_block": max_shared_bytes}
    return tvm.target.Target(device, host=this_machine().tvm_target())
