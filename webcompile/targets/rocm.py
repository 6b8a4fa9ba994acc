"""AMD's GPUs: kernels as AMDGPU code objects. TVM's wheels have no ROCm runtime, so nothing here can run them."""

from __future__ import annotations

import tvm

from webcompile.targets import TargetSpec, VariantSpec
from webcompile.targets.hosts import this_machine
from webcompile.targets.schedules import HARDWARE

ARCHITECTURE = "gfx1100"
"""RDNA 3. A code object is for one architecture."""

_LIMITS = {"max_num_threads": 256, "max_threads_per_block": 256, "max_shared_memory_per_block": 65536}


def target() -> TargetSpec:
    """See TargetSpec. Threads exchange values in memory: what TVM generates has no name for neighbours."""
    host = this_machine()
    device = {"kind": "rocm", "mcpu": ARCHITECTURE, "thread_warp_size": 32, **_LIMITS}
    tvm_target = tvm.target.Target(device, host=host.tvm_target())
    return TargetSpec(
        name="rocm",
        host=host.name,
        library="model.rocm.{variant}.so",
        variants=tuple(
            VariantSpec(name, dtype, (), tvm_target, HARDWARE) for name, dtype in (("f16", "float16"), ("f32", "float32"))
        ),
    )
