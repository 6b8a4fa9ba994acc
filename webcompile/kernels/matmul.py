"""Matrix products of activations with stored weights: dequantized in registers, with what comes before and after fused in.

    y[s, n] = epilogue( sum_k norm(x)[s, k] * weight[n, k] )

Each thread owns a few rows of the weight by `token_tile` tokens; `lanes` threads may share a dot product, each taking
every `lanes`-th block of eight columns, and add their sums through shared memory.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from webcompile.kernels.builder import (
    Buffer,
    Expr,
    Schedule,
    add,
    add_over_lanes,
    add_over_team,
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
from webcompile.kernels.epilogues import Epilogue, Store
from webcompile.kernels.weights import BLOCK, WeightFormat


@functools.cache
def matmul(
    schedule: Schedule,
    weight: WeightFormat,
    rows: int,
    columns: int,
    dtype: str,
    *,
    one_token: bool,
    epilogue: Epilogue | None = None,
    bias: bool = False,
    norm_epsilon: float | None = None,
) -> Any:
    """The PrimFunc (x[s, columns] dtype, weight buffers, [bias[rows]], [norm[columns]], the epilogue's buffers).

    `one_token` fixes s = 1 (decode); else s is symbolic and tokens are tiled. With `norm_epsilon`, x is first RMS
    normalized and scaled by `norm`: the factor is the same for a whole token, so it is applied to the finished sums.
    """
    epilogue = epilogue or Store(dtype)
    tokens: Expr = 1 if one_token else tirx.Var("s", "int64")
    token_tile = 1 if one_token else schedule.token_tile
    num_units = rows // epilogue.rows_per_unit
    unit_tile = max(1, schedule.row_tile // epilogue.rows_per_unit)
    teams = schedule.threads // schedule.lanes
    name = f"matmul_{weight.key}_{rows}x{columns}{'_norm' if norm_epsilon is not None else ''}{epilogue.suffix}"
    with kernel(name + ("" if one_token else "_tiled")) as finish:
        x = argument("x", (tokens, columns), dtype)
        matrix = weight.declare("w", rows, columns)
        bias_buffer = argument("bias", (rows,), dtype) if bias else None
        norm = argument("norm", (columns,), dtype) if norm_epsilon is not None else None
        outputs = epilogue.declare(tokens, rows)
        with (
            blocks(schedule, ceildiv(tokens, token_tile), "y") as token_block,
            blocks(schedule, ceildiv(num_units, teams * unit_tile)) as unit_block,
            threads(schedule, schedule.threads) as thread,
        ):
            first_unit = unit_block * (teams * unit_tile) + thread // schedule.lanes
            units = [first_unit + i * teams for i in range(unit_tile)]
            token = [token_block * token_tile + i for i in range(token_tile)]
            # Units and tokens beyond the end are computed on clamped indices and not stored.
            weight_rows = [row for unit in units for row in epilogue.rows(tirx.min(unit, num_units - 1), rows)]
            product = _Product(
                x=x,
                x_rows=token if one_token else [tirx.min(t, tokens - 1) for t in token],
                norm=norm,
                weight=weight,
                matrix=matrix,
                weight_rows=weight_rows,
            )
            sums = product.emit(thread, schedule)

            for i in range(token_tile):
                factor = f32(1.0)
                if norm_epsilon is not None:
                    factor = tirx.rsqrt(sums[product.square_index(i)] / f32(columns) + f32(norm_epsilon))
                for u, unit in enumerate(units):
                    with when(tirx.all(unit < num_units, token[i] < tokens, thread % schedule.lanes == 0)):
                        values = []
                        for r in range(epilogue.rows_per_unit):
                            row = u * epilogue.rows_per_unit + r
                            value = sums[product.index(row, i)] * factor
                            values.append(value if bias_buffer is None else value + f32(bias_buffer[weight_rows[row]]))
                        epilogue.emit(outputs, values, token[i], unit)
    return finish()


@dataclass(frozen=True)
class _Product:
    """The dot products of one thread: its tokens by its rows."""

    x: Buffer
    x_rows: Sequence[Expr]
    norm: Buffer | None
    weight: WeightFormat
    matrix: Sequence[Buffer]
    weight_rows: Sequence[Expr]

    def index(self, row: int, token: int) -> int:
        """Where the sum of a row and token lies in what `emit` gives."""
        return row * len(self.x_rows) + token

    def square_index(self, token: int) -> int:
        """Where the sum of a token's squares lies, if there is a norm."""
        return len(self.weight_rows) * len(self.x_rows) + token

    def emit(self, thread: Expr, schedule: Schedule) -> Buffer:
        """Emits the loop over columns; the sums, added over lanes."""
        tokens = len(self.x_rows)
        num_blocks = ceildiv(int(self.x.shape[1]), BLOCK)
        count = len(self.weight_rows) * tokens + (tokens if self.norm is not None else 0)
        sums = local(count)
        for i in range(count):
            store(sums, i, f32(0.0))
        # With several lanes, neighbours take neighbouring blocks, so that their loads coalesce.
        strip = self.weight.blocks_per_scale if schedule.lanes == 1 else 1
        with T.serial(ceildiv(num_blocks, strip * schedule.lanes)) as step:
            first = step * (strip * schedule.lanes) + thread % schedule.lanes
            parts, x_sums = local(len(self.weight_rows) * tokens), local(tokens)
            for i in range(len(self.weight_rows) * tokens):
                store(parts, i, f32(0.0))
            for t in range(tokens):
                store(x_sums, t, f32(0.0))
            with T.serial(strip) as i, when(first + i < num_blocks):
                block = local(1, "int32")
                store(block, 0, first + i)
                values = self._load_block(block[0], sums, thread, schedule)
                self._multiply_block(block[0], values, parts, x_sums)
            with when(first < num_blocks):
                self._scale_strip(first, parts, x_sums, sums)
        add_over_lanes(sums, count, thread, schedule)
        if self.norm is not None and schedule.shared_width > 1:
            for t in range(tokens):  # each thread has seen only its own columns
                add_over_team(sums, self.square_index(t), thread, schedule.shared_width)
        return sums

    def _multiply_block(self, block: Expr, values: Buffer, parts: Buffer, x_sums: Buffer) -> None:
        """parts += codes of a block times x, x_sums += x."""
        for t in range(len(self.x_rows)):
            for j in range(BLOCK):
                add(x_sums, t, values[t * BLOCK + j])
        for r, row in enumerate(self.weight_rows):
            for j, code in enumerate(self.weight.codes(self.matrix, row, block)):
                held = local(1)
                store(held, 0, code)
                for t in range(len(self.x_rows)):
                    add(parts, self.index(r, t), held[0] * values[t * BLOCK + j])

    def _scale_strip(self, first: Expr, parts: Buffer, x_sums: Buffer, sums: Buffer) -> None:
        """sums += scale (sum code x - offset sum x), for a strip of blocks that share a scale."""
        for r, row in enumerate(self.weight_rows):
            scale = local(1)
            store(scale, 0, self.weight.scale(self.matrix, row, first))
            for t in range(len(self.x_rows)):
                part = parts[self.index(r, t)]
                if self.weight.offset:
                    part = part - f32(self.weight.offset) * x_sums[t]
                add(sums, self.index(r, t), part * scale[0])

    def _load_block(self, block: Expr, sums: Buffer, thread: Expr, schedule: Schedule) -> Buffer:
        """x[row, BLOCK * block ...] of each token in float32, zero beyond the last column; times `norm`, squares summed.

        With subgroups all threads of a team want the same values: each loads one of a few, and they are handed around.
        """
        width = schedule.shared_width
        values = local(len(self.x_rows) * BLOCK)
        for j in range(0, BLOCK, width):
            column = block * BLOCK + j + (thread % width if width > 1 else 0)
            scale = local(1)
            if self.norm is not None:
                store(scale, 0, self._load(self.norm, None, column))
            for t, row in enumerate(self.x_rows):
                mine = local(1)
                store(mine, 0, self._load(self.x, row, column))
                if self.norm is not None:
                    add(sums, self.square_index(t), mine[0] * mine[0])
                    store(mine, 0, mine[0] * scale[0])
                for source in range(width):
                    held = broadcast(mine[0], source, width) if width > 1 else mine[0]
                    store(values, t * BLOCK + j + source, held)
        return values

    def _load(self, buffer: Buffer, row: Expr | None, column: Expr) -> Expr:
        columns = int(self.x.shape[1])
        if columns % BLOCK == 0:
            return f32(buffer[column] if row is None else buffer[row, column])
        # Not a branch: dozens of them in a row take SwiftShader's compiler all memory.
        last = tirx.min(column, columns - 1)
        return f32(buffer[last] if row is None else buffer[row, last]) * f32(column < columns)
