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
                sums, x=x, x_row=x_row, weight=weight, matrix=matrix, weight_row=weight_row, lane=lane, lanes=schedule.lanes
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
    lane: Expr,
    lanes: int,
) -> None:
    """sums[row, token] = this lane's part of the dot products."""
    tokens, columns = len(x_row), int(x.shape[1])
    for i in range(len(weight_row) * tokens):
        store(sums, i, f32(0.0))
    num_blocks = ceildiv(columns, BLOCK)
    with T.serial(ceildiv(num_blocks, lanes)) as step:
        block = step * lanes + lane
        with when(block < num_blocks):
            values = local(tokens * BLOCK)
            for i, row in enumerate(x_row):
                for j in range(BLOCK):
                    store(values, i * BLOCK + j, _load_x(x, row, block * BLOCK + j, columns))
            for r, row in enumerate(weight_row):
                loaded, scale = weight.load(matrix, row, block)
                part = local(tokens)
                for i in range(tokens):
                    store(part, i, f32(0.0))
                for j, weight_value in enumerate(loaded):
                    held = local(1)
                    store(held, 0, weight_value)
                    for i in range(tokens):
                        add(part, i, held[0] * values[i * BLOCK + j])
                for i in range(tokens):
                    add(sums, r * tokens + i, part[i] if scale is None else part[i] * scale)


def _load_x(x: Buffer, row: Expr, column: Expr, columns: int) -> Expr:
    if columns % BLOCK == 0:
        return f32(x[row, column])
    return tirx.if_then_else(column < columns, f32(x[row, column]), f32(0.0))
