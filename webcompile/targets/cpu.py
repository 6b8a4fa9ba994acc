"""The machine's own CPU, through LLVM."""

from __future__ import annotations

import tvm

from webcompile.contracts import native_host
from webcompile.kernels.builder import Schedule
from webcompile.targets import TargetSpec, VariantSpec

_SCHEDULE = Schedule(
    gpu=False, threads=16, lanes=1, row_tile=4, token_tile=4, subgroup=0, unroll_heads=False, attention_threads=1
)


def target() -> TargetSpec:
    """See TargetSpec. Compiled for the CPU it is compiled on; sums may be reordered, else nothing vectorizes."""
    cpu = tvm.target.codegen.llvm_get_system_cpu()
    fast = {"fast-math-reassoc": True, "fast-math-contract": True}
    return TargetSpec(
        name="cpu",
        host=native_host(),
        library="model.cpu.{variant}.so",
        variants=(VariantSpec("f32", "float32", (), tvm.target.Target({"kind": "llvm", "mcpu": cpu, **fast}), _SCHEDULE),),
    )
