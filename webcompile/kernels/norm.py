"""RMS normalization as a kernel of its own, for prefill: y = x / sqrt(mean(x^2) + epsilon) * weight, in float32."""

from __future__ import annotations

from functools import cache
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from webcompile.kernels.builder import (
    Expr,
    Schedule,
    add,
    add_over_lanes,
    argument,
    blocks,
    ceildiv,
    f32,
    kernel,
    local,
    store,
    threads,
    when,
)


@cache
def rms_norm(schedule: Schedule, width: int, dtype: str, epsilon: float, *, last_only: bool = False) -> Any:
    """The PrimFunc (x[s, width], weight[width], y[s or 1, width]); `last_only` normalizes just the last token."""
    tokens: Expr = tirx.Var("s", "int64")
    rows: Expr = 1 if last_only else tokens
    teams = schedule.threads // schedule.lanes
    with kernel(f"rms_norm_{width}" + ("_last" if last_only else "")) as finish:
        x = argument("x", (tokens, width), dtype)
        weight = argument("weight", (width,), dtype)
        y = argument("y", (rows, width), dtype)
        with blocks(schedule, ceildiv(rows, teams)) as block, threads(schedule, schedule.threads) as thread:
            lane, row = thread % schedule.lanes, block * teams + thread // schedule.lanes
            source = tokens - 1 if last_only else tirx.min(row, rows - 1)
            total = local(1)
            store(total, 0, f32(0.0))
            with T.serial(ceildiv(width, schedule.lanes)) as step:
                column = step * schedule.lanes + lane
                with when(column < width):
                    value = f32(x[source, column])
                    add(total, 0, value * value)
            add_over_lanes(total, 1, thread, schedule)
            factor = local(1)
            store(factor, 0, f32(1.0) / tirx.sqrt(total[0] / f32(width) + f32(epsilon)))
            with T.serial(ceildiv(width, schedule.lanes)) as step:
                column = step * schedule.lanes + lane
                with when(tirx.all(column < width, row < rows)):
                    store(y, (row, column), (f32(x[source, column]) * factor[0] * f32(weight[column])).astype(dtype))
    return finish()
