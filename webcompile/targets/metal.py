"""Apple's GPUs: kernels in Metal's language, compiled by the system when a model is loaded.

On macOS TVM's own Metal runtime runs them. Elsewhere they are made all the same, to be linked into an app.
"""

from __future__ import annotations

import tvm

from webcompile.targets import TargetSpec, VariantSpec
from webcompile.targets.hosts import this_machine
from webcompile.targets.schedules import wide_subgroups

_LIMITS = {"max_num_threads": 256, "max_threads_per_block": 256, "max_shared_memory_per_block": 32768}


def target() -> TargetSpec:
    """See TargetSpec. All GPUs that have SIMD groups of 32 compute in half floats: A11 and M1 on."""
    host = this_machine()
    tvm_target = tvm.target.Target({"kind": "metal", "thread_warp_size": 32, **_LIMITS}, host=host.tvm_target())
    schedule = wide_subgroups("simd_shuffle_xor")
    return TargetSpec(
        name="metal",
        host=host.name,
        library="model.metal.{variant}.so",
        variants=tuple(
            VariantSpec(name, dtype, (), tvm_target, schedule) for name, dtype in (("f16", "float16"), ("f32", "float32"))
        ),
    )
