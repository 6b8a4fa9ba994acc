"""The machine's own CPU, through LLVM."""

from __future__ import annotations

from webcompile.kernels.builder import Schedule
from webcompile.targets import TargetSpec, VariantSpec
from webcompile.targets.hosts import this_machine

_SCHEDULE = Schedule(
    gpu=False, threads=16, lanes=1, row_tile=4, token_tile=4, subgroup=0, unroll_heads=False, attention_threads=1
)


FAST_MATH = {"fast-math-reassoc": True, "fast-math-contract": True}
"""Sums may be reordered, else nothing vectorizes."""


def target() -> TargetSpec:
    """See TargetSpec. Compiled for the CPU it is compiled on."""
    host = this_machine()
    return TargetSpec(
        name="cpu",
        host=host.name,
        library="model.cpu.{variant}.so",
        variants=(VariantSpec("f32", "float32", (), host.tvm_target(**FAST_MATH), _SCHEDULE),),
    )
