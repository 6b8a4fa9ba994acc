"""A thin layer over TVM's IR builder: a kernel is a Python function that emits loops, loads and stores.

One body serves every target. On a GPU `blocks` and `threads` bind to the launch grid; on a CPU the blocks run in
parallel over the thread pool and the threads of a block run one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

Expr = Any
"""A TIR expression, or a Python number where TVM takes one."""
Buffer = Any


@dataclass(frozen=True)
class Schedule:
    """How kernels are laid over a kind of device. Facts only; `webcompile.targets` holds one per variant."""

    gpu: bool
    threads: int
    """Threads of a workgroup."""
    lanes: int
    """Threads that share one sum. 1 suits CPUs and software adapters, more lets a GPU coalesce its loads."""
    row_tile: int
    """Weight rows per thread in matrix products: a loaded activation serves that many rows."""
    token_tile: int
    """Tokens per thread in prefill: a loaded weight serves that many tokens."""
    subgroup: int
    """Neighbouring threads that may hand values to one another without memory; 0 where there are no subgroups."""
    unroll_heads: bool
    """Whether loops over a head's dimensions are unrolled. GPUs spill arrays that a loop indexes; the compilers of
    software adapters take long over long code."""
    attention_threads: int
    """Threads that share the cached tokens of a head in decode; 1 on a CPU, where a barrier cannot be."""

    @property
    def shared_width(self) -> int:
        """Neighbouring threads that want the same activations and can hand them around; 1 for none."""
        return self.subgroup if self.subgroup and self.lanes == 1 else 1


@contextmanager
def kernel(name: str) -> Iterator[Callable[[], Any]]:
    """Opens a PrimFunc; after the block, the yielded function returns it."""
    with IRBuilder() as ir_builder, T.prim_func():
        T.func_name(name)
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        yield ir_builder.get


def argument(name: str, shape: Sequence[Expr], dtype: str) -> Buffer:
    """Declares the next buffer argument of the open kernel."""
    return T.arg(name, T.buffer(tuple(shape), dtype))


@contextmanager
def blocks(schedule: Schedule, extent: Expr, axis: str = "x") -> Iterator[Expr]:
    """Workgroups along one axis of the grid. Open them outside `threads`, the last axis first."""
    if schedule.gpu:
        frame = T.thread_binding(extent, thread=f"blockIdx.{axis}")
    else:
        frame = T.parallel(extent) if axis == "x" else T.serial(extent)
    with frame as index:
        yield index


@contextmanager
def threads(schedule: Schedule, extent: int) -> Iterator[Expr]:
    """Threads of a workgroup."""
    with T.thread_binding(extent, thread="threadIdx.x") if schedule.gpu else T.serial(extent) as index:
        yield index


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    """Emits the block under a condition."""
    with T.If(condition), T.Then():
        yield


def local(size: int, dtype: str = "float32") -> Buffer:
    """An array in registers, private to a thread."""
    return T.alloc_buffer((size,), dtype, scope="local")


def shared(shape: Sequence[int], dtype: str = "float32") -> Buffer:
    """An array shared by the threads of a workgroup."""
    return T.alloc_buffer(tuple(shape), dtype, scope="shared")


def barrier() -> None:
    """Waits for all threads of the workgroup and makes their shared stores visible."""
    T.evaluate(tirx.call_intrin("int32", "tirx.tvm_storage_sync", "shared"))


def store(buffer: Buffer, index: Expr | Sequence[Expr], value: Expr) -> None:
    """buffer[index] = value"""
    T.buffer_store(buffer, value, list(index) if isinstance(index, (list, tuple)) else [index])


def add(buffer: Buffer, index: Expr, value: Expr) -> None:
    """buffer[index] += value, for one-dimensional buffers."""
    T.buffer_store(buffer, buffer[index] + value, [index])


def broadcast(value: Expr, source: int, width: int) -> Expr:
    """`value` of thread `source` among each `width` neighbouring threads of a subgroup. All threads must take part."""
    return tirx.call_intrin("float32", "tirx.tvm_warp_shuffle", tirx.const(0, "uint32"), value, source, width, width)


def add_over_team(values: Buffer, index: int, thread: Expr, width: int) -> None:
    """values[index] of each thread becomes the sum over its `width` neighbours, by exchanges within the subgroup.

    WGSL's shuffle by exclusive or is not among TVM's intrinsics: each exchange is a shift up or down, as the thread needs.
    """
    distance = 1
    while distance < width:
        below = tirx.floormod(thread, 2 * distance) < distance
        shifts = [
            tirx.call_intrin(
                "float32", f"tirx.tvm_warp_shuffle_{way}", tirx.const(0, "uint32"), values[index], distance, width, width
            )
            for way in ("down", "up")
        ]
        other = local(2)
        store(other, 0, shifts[0])
        store(other, 1, shifts[1])
        add(values, index, tirx.Select(below, other[0], other[1]))
        distance *= 2


def add_over_lanes(sums: Buffer, count: int, thread: Expr, schedule: Schedule) -> None:
    """Replaces sums[0..count) of each thread by the sum over the `lanes` threads of its team.

    One barrier, then each lane adds up alone: for a few lanes that beats a tree with a barrier per level.
    """
    if schedule.lanes == 1:
        return
    parts = shared((count, schedule.threads))
    for i in range(count):
        store(parts, (i, thread), sums[i])
    barrier()
    first = thread - thread % schedule.lanes
    for i in range(count):
        store(sums, i, f32(0.0))
        for lane in range(schedule.lanes):
            add(sums, i, parts[i, first + lane])


def f32(value: Expr) -> Expr:
    """The value as float32."""
    return tirx.const(float(value), "float32") if isinstance(value, (int, float)) else value.astype("float32")


def ceildiv(a: Expr, b: int) -> Expr:
    """ceil(a / b) for non-negative numbers, on Python ints or expressions."""
    return -(-a // b) if isinstance(a, int) else tirx.floordiv(a + (b - 1), b)
