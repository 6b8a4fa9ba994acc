"""A kernel of one line, to see whether a device computes what it is told.

`python -m webcompile.build.probe KIND INDEX` exits with 0 if it does: some drivers end the process that they fail in.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from webcompile import backends
from webcompile.targets.hosts import this_machine

_BLOCKS, _THREADS = 4, 64


def computes(kind: str, index: int = 0) -> bool:
    """Whether the device, by TVM's name and number, gives the right answer. Raises what the device raises."""
    host = this_machine().tvm_target()
    target = host if kind == "cpu" else tvm.target.Target({"kind": kind, "max_num_threads": 256}, host=host)
    compiled = tvm.compile(tvm.IRModule({"probe": _kernel(is_gpu=kind != "cpu")}), target)
    x, device = np.arange(_BLOCKS * _THREADS, dtype=np.float32), tvm.device(kind, index)
    with backends.driver_errors():
        if kind in backends.build.KINDS:
            backends.load(kind)
            backends.make_runnable(compiled.mod)
        y = tvm.runtime.empty(x.shape, "float32", device)
        compiled["probe"](tvm.runtime.tensor(x, device), y)
        return bool(np.array_equal(y.numpy(), 2 * x + 1))


def _kernel(*, is_gpu: bool) -> Any:
    """The PrimFunc (x[n], y[n]): y = 2 x + 1."""

    def loop(extent: int, thread: str) -> Any:
        return T.thread_binding(extent, thread=thread) if is_gpu else T.serial(extent)

    with IRBuilder() as ir_builder, T.prim_func():
        T.func_name("probe")
        T.func_attr({"global_symbol": "probe", "tirx.noalias": True, "tirx.is_scheduled": True})
        x, y = (T.arg(name, T.buffer((_BLOCKS * _THREADS,), "float32")) for name in "xy")
        with loop(_BLOCKS, "blockIdx.x") as block, loop(_THREADS, "threadIdx.x") as thread:
            at = block * _THREADS + thread
            T.buffer_store(y, x[at] * tirx.const(2, "float32") + tirx.const(1, "float32"), [at])
    return ir_builder.get()


if __name__ == "__main__":
    sys.exit(0 if computes(sys.argv[1], int(sys.argv[2])) else "a wrong answer")
