"""Recurrences whose state is a matrix for each head: state-space models, linear attention, the delta rule.

A row of the state belongs to a dimension of the output and changes by itself; what tokens do to it a `Recurrence` says.
Tokens follow one another, rows run side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

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
    hold,
    kernel,
    local,
    store,
    threads,
    when,
)
from webcompile.kernels.state import Paging


class Recurrence(Protocol):
    """What happens to a row of the state when a token comes."""

    def __hash__(self) -> int:
        """Recurrences are keys of the kernel caches."""

    @property
    def key(self) -> str:
        """Name of the kernel."""

    @property
    def heads(self) -> int:
        """Matrices."""

    @property
    def rows(self) -> int:
        """Rows of each: dimensions of the output."""

    @property
    def columns(self) -> int:
        """Columns of each: dimensions of keys."""

    def declare(self, tokens: Expr, dtype: str) -> list[Buffer]:
        """Declares the inputs."""

    def begin(self, inputs: Sequence[Buffer], head: Expr, row: Expr) -> Row:
        """What is the same for all tokens."""


class Row(Protocol):
    """A row of the state in an open kernel. Values are float32."""

    num_sums: int
    """Sums over the columns that a token needs before the row changes."""

    def token(self, token: Expr) -> None:
        """Begins with a token: what concerns the whole row."""

    def terms(self, column: Expr, old: Expr) -> list[Expr]:
        """What a column adds to each of the sums."""

    def summed(self, sums: list[Expr]) -> None:
        """The sums, before any column changes."""

    def change(self, column: Expr, old: Expr) -> Expr:
        """The column's new value."""

    def read(self, column: Expr, old: Expr, new: Expr) -> Expr:
        """What the column adds to the output."""

    def output(self, total: Expr) -> Expr:
        """The output from its sum over the columns."""


@cache
def scan(schedule: Schedule, recurrence: Recurrence, dtype: str, paging: Paging, *, one_token: bool) -> Any:
    """The PrimFunc (the inputs of the recurrence, position[1], page_table, state, y[s, heads rows]).

    The state is [heads, rows, columns]. A team of threads takes a row, each every `lanes`-th column of it.
    """
    tokens: Expr = 1 if one_token else tirx.Var("s", "int64")
    rows, columns, lanes = recurrence.rows, recurrence.columns, schedule.lanes
    count, teams, own = recurrence.heads * rows, schedule.threads // lanes, ceildiv(columns, lanes)
    with kernel(recurrence.key + ("" if one_token else "_tiled")) as finish:
        inputs = recurrence.declare(tokens, dtype)
        state = paging.declare(tokens)
        y = argument("y", (tokens, count), dtype)
        with blocks(schedule, ceildiv(count, teams)) as block, threads(schedule, schedule.threads) as thread:
            lane, unit = thread % lanes, block * teams + thread // lanes
            number = tirx.min(unit, count - 1)
            head, row = tirx.floordiv(number, rows), tirx.floormod(number, rows)
            each = T.unroll if schedule.unroll_heads else T.serial
            values, before = local(own), state.before()

            def inside(i: Expr) -> Expr:
                return i * lanes + lane < columns

            with each(own) as i:
                store(values, i, f32(0.0))
                with when(inside(i)):
                    store(values, i, before(head, row, i * lanes + lane))
            step = recurrence.begin(inputs, head, row)
            with T.serial(tokens) as token:
                step.token(token)
                if step.num_sums:
                    sums = local(step.num_sums)
                    for part in range(step.num_sums):
                        store(sums, part, f32(0.0))
                    with each(own) as i, when(inside(i)):
                        for part, term in enumerate(step.terms(i * lanes + lane, values[i])):
                            add(sums, part, term)
                    add_over_lanes(sums, step.num_sums, thread, schedule)
                    step.summed([sums[part] for part in range(step.num_sums)])
                total = local(1)
                store(total, 0, f32(0.0))
                with each(own) as i, when(inside(i)):
                    column, old = i * lanes + lane, hold(values[i])
                    store(values, i, step.change(column, old))
                    add(total, 0, step.read(column, old, values[i]))
                add_over_lanes(total, 1, thread, schedule)
                with when(tirx.all(lane == 0, unit < count)):
                    store(y, (token, number), step.output(total[0]).astype(dtype))
                with when(unit < count), state.kept(token) as (page, slot), each(own) as i, when(inside(i)):
                    store(state.pool, (page, slot, head, row, i * lanes + lane), values[i])
    return finish()
