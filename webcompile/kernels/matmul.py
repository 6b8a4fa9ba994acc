"""Matrix products of activations with stored weights, dequantized in registers, with what follows them fused in.

    y[s, n] = epilogue( sum_k x[s, k] * weight[n, k] )

Each thread owns `row_tile` rows by `token_tile` tokens; `lanes` threads may share a dot product, each taking every
`lanes`-th block of eight columns, and add their sums through shared memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

from tvm import tirx
from tvm.tirx.script import builder as T

from webcompile.kernels.builder import (
    Buffer,
    Expr,
    Schedule,
    add,
    add_over_lanes,
    argument,
    blocks,
    broadcast,
    ceildiv,
    f32,
    kernel,
    local,
    store,
    threads,
    when,
)
from webcompile.kernels.weights import BLOCK, WeightFormat

Epilogue = Literal["none", "residual", "swiglu"]
"""`residual`: y += r[s, n]. `swiglu`: rows n and n + N of the weight are gate and up, y = silu(gate) * up, N = rows / 2."""


@cache
def matmul(
    schedule: Schedule,
    weight: WeightFormat,
    rows: int,
    columns: int,
    dtype: str,
    *,
    one_token: bool,
    epilogue: Epilogue = "none",
    bias: bool = False,
    out_dtype: str | None = None,
) -> Any:
    """The PrimFunc (x[s, columns] dtype, weight buffers, [bias[rows]], [residual[s, rows]], y[s, out]) of a product.

    `one_token` fixes s = 1 (decode); else s is symbolic and tokens are tiled. Sums are float32; y is `out_dtype`.
    """
    tokens: Expr = 1 if one_token else tirx.Var("s", "int64")
    token_tile = 1 if one_token else schedule.token_tile
    out_rows = rows // 2 if epilogue == "swiglu" else rows
    out_dtype = out_dtype or dtype
    name = f"matmul_{weight.key}_{rows}x{columns}" + ("" if epilogue == "none" else f"_{epilogue}")
    teams = schedule.threads // schedule.lanes
    halves = 2 if epilogue == "swiglu" else 1
    row_tile = max(1, schedule.row_tile // halves)
    with kernel(name + ("" if one_token else "_tiled")) as finish:
        x = argument("x", (tokens, columns), dtype)
        matrix = weight.declare("w", rows, columns)
        bias_buffer = argument("bias", (rows,), dtype) if bias else None
        residual = argument("residual", (tokens, out_rows), dtype) if epilogue == "residual" else None
        y = argument("y", (tokens, out_rows), out_dtype)

        with (
            blocks(schedule, ceildiv(tokens, token_tile), "y") as token_block,
            blocks(schedule, ceildiv(out_rows, teams * row_tile)) as row_block,
            threads(schedule, schedule.threads) as thread,
        ):
            lane, team = thread % schedule.lanes, thread // schedule.lanes
            first_row = row_block * (teams * row_tile) + team
            out_row = [first_row + r * teams for r in range(row_tile)]
            # Rows and tokens beyond the end are computed on clamped indices and not stored.
            weight_row = [tirx.min(row, out_rows - 1) + half * out_rows for row in out_row for half in range(halves)]
            token = [token_block * token_tile + i for i in range(token_tile)]
            x_row = token if one_token else [tirx.min(t, tokens - 1) for t in token]

            sums = local(len(weight_row) * token_tile)
            _accumulate(
                sums,
                x=x,
                x_row=x_row,
                weight=weight,
                matrix=matrix,
                weight_row=weight_row,
                thread=thread,
                schedule=schedule,
            )
            add_over_lanes(sums, len(weight_row) * token_tile, thread, schedule)

            def finished(row: int, half: int, i: int) -> Expr:
                index = row * halves + half
                value = sums[index * token_tile + i]
                return value + f32(bias_buffer[weight_row[index]]) if bias_buffer is not None else value

            for r in range(row_tile):
                for i in range(token_tile):
                    inside = tirx.all(out_row[r] < out_rows, token[i] < tokens, lane == 0)
                    with when(inside):
                        value = finished(r, 0, i)
                        if epilogue == "swiglu":
                            value = value / (f32(1.0) + tirx.exp(-value)) * finished(r, 1, i)
                        if residual is not None:
                            value = value + f32(residual[token[i], out_row[r]])
                        store(y, (token[i], out_row[r]), value.astype(out_dtype))
    return finish()


def _accumulate(
    sums: Buffer,
    *,
    x: Buffer,
    x_row: Sequence[Expr],
    weight: WeightFormat,
    matrix: Sequence[Buffer],
    weight_row: Sequence[Expr],
    thread: Expr,
    schedule: Schedule,
) -> None:
    """sums[row, token] = this lane's part of the dot products.

    Runs over strips of blocks that share a scale: sum (code - offset) * scale * x = scale * (sum code * x - offset * sum x).
    """
    tokens, num_blocks = len(x_row), ceildiv(int(x.shape[1]), BLOCK)
    # With several lanes, neighbours take neighbouring blocks, so that their loads coalesce.
    strip = weight.blocks_per_scale if schedule.lanes == 1 else 1
    for i in range(len(weight_row) * tokens):
        store(sums, i, f32(0.0))
    with T.serial(ceildiv(num_blocks, strip * schedule.lanes)) as step:
        first = step * (strip * schedule.lanes) + thread % schedule.lanes
        parts, x_sums = local(len(weight_row) * tokens), local(tokens)
        for i in range(len(weight_row) * tokens):
            store(parts, i, f32(0.0))
        for i in range(tokens):
            store(x_sums, i, f32(0.0))
        with T.serial(strip) as i, when(first + i < num_blocks):
            block = local(1, "int32")
            store(block, 0, first + i)
            values = _load_block(x, x_row, block[0], thread, schedule)
            for t in range(tokens):
                for j in range(BLOCK):
                    add(x_sums, t, values[t * BLOCK + j])
            for r, row in enumerate(weight_row):
                for j, code in enumerate(weight.codes(matrix, row, block[0])):
                    held = local(1)
                    store(held, 0, code)
                    for t in range(tokens):
                        add(parts, r * tokens + t, held[0] * values[t * BLOCK + j])
        with when(first < num_blocks):
            for r, row in enumerate(weight_row):
                scale = local(1)
                store(scale, 0, weight.scale(matrix, row, first))
                for t in range(tokens):
                    part = parts[r * tokens + t]
                    if weight.offset:
                        part = part - f32(weight.offset) * x_sums[t]
                    add(sums, r * tokens + t, part * scale[0])


def _load_block(x: Buffer, x_row: Sequence[Expr], block: Expr, thread: Expr, schedule: Schedule) -> Buffer:
    """x[row, BLOCK * block ...] of each row, float32; zero beyond the last column.

    With subgroups and one lane, all threads want the same values: each loads one of a few, and they are handed around.
    """
    columns, width = int(x.shape[1]), schedule.subgroup if schedule.lanes == 1 else 0
    values = local(len(x_row) * BLOCK)

    def load(row: Expr, column: Expr) -> Expr:
        if columns % BLOCK == 0:
            return f32(x[row, column])
        return tirx.if_then_else(column < columns, f32(x[row, column]), f32(0.0))

    for t, row in enumerate(x_row):
        for start in range(0, BLOCK, width or 1):
            if not width:
                store(values, t * BLOCK + start, load(row, block * BLOCK + start))
                continue
            mine = local(1)
            store(mine, 0, load(row, block * BLOCK + start + thread % width))
            for j in range(width):
                store(values, t * BLOCK + start + j, broadcast(mine[0], j, width))
    return values
