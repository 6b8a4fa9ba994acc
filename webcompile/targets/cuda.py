"""NVIDIA's GPUs: CUDA kernels, compiled ahead for named architectures, host code for this machine."""

from __future__ import annotations

import tvm

from webcompile.targets import TargetSpec, VariantSpec
from webcompile.targets.hosts import this_machine
from webcompile.targets.schedules import wide_subgroups

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90")
"""Turing, Ampere (A100 and the rest), Ada, Hopper. Later ones compile the PTX of the last when a model is loaded."""

_LIMITS = {"max_num_threads": 1024, "max_threads_per_block": 1024, "max_shared_memory_per_block": 49152}


def target() -> TargetSpec:
    """See TargetSpec. Every architecture here computes in half floats."""
    host = this_machine()
    device = {"kind": "cuda", "arch": ARCHITECTURES[0], "thread_warp_size": 32, **_LIMITS}
    tvm_target = tvm.target.Target(device, host=host.tvm_target())
    schedule = wide_subgroups("__shfl_xor_sync")
    return TargetSpec(
        name="cuda",
        host=host.name,
        library="model.cuda.{variant}.so",
        variants=tuple(
            VariantSpec(name, dtype, (), tvm_target, schedule, architectures=ARCHITECTURES)
            for name, dtype in (("f16", "float16"), ("f32", "float32"))
        ),
    )
