"""Normalization of a token's activations, in float32: as a kernel of its own, and what products that normalize need to know.

rms:    y = x / sqrt(mean(x^2) + epsilon) * (offset + weight)                        (Zhang & Sennrich 2019)
layer:  y = (x - mean(x)) / sqrt(variance(x) + epsilon) * (offset + weight) + bias   (Ba et al. 2016)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

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


@dataclass(frozen=True)
class Normalization:
    """How values are normalized. Its parameters are one array: `parts` times the width, weight before bias."""

    epsilon: float
    kind: str = "rms"
    """"rms" or "layer"."""
    weight: bool = True
    bias: bool = False
    offset: float = 0.0
    """Added to the weight."""

    @property
    def centers(self) -> bool:
        """Whether the mean is subtracted."""
        return self.kind == "layer"

    @property
    def parts(self) -> int:
        """Arrays of parameters: weight, bias."""
        return self.weight + self.bias

    def apply(self, normalized: Expr, weight: Expr | None, bias: Expr | None) -> Expr:
        """A value with its parameters, float32 like them; None for what there is not."""
        if weight is not None:
            normalized = normalized * (weight + f32(self.offset) if self.offset else weight)
        return normalized if bias is None else normalized + bias

    def factor(self, squares: Expr, count: Expr) -> Expr:
        """What values (less their mean) are multiplied by, from the sum of the squares of `count` such values."""
        return f32(1.0) / tirx.sqrt(squares / f32(count) + f32(self.epsilon))


@cache
def normalize(
    schedule: Schedule,
    norm: Normalization,
    width: int,
    dtype: str,
    *,
    last_only: bool = False,
    residual: bool = False,
    multiplier: float = 1.0,
) -> Any:
    """The PrimFunc (x[s, width], [parameters[parts width]], [residual[s, width]], y[s or 1, width]).

    `last_only` normalizes just the last token. With a residual, y = residual + multiplier * norm(x).
    """
    tokens: Expr = tirx.Var("s", "int64")
    rows: Expr = 1 if last_only else tokens
    teams = schedule.threads // schedule.lanes
    name = f"{norm.kind}_norm_{width}" + ("_residual" if residual else "") + ("_last" if last_only else "")
    with kernel(name) as finish:
        x = argument("x", (tokens, width), dtype)
        params = argument("params", (norm.parts * width,), dtype) if norm.parts else None
        added = argument("residual", (tokens, width), dtype) if residual else None
        y = argument("y", (rows, width), dtype)
        with blocks(schedule, ceildiv(rows, teams)) as block, threads(schedule, schedule.threads) as thread:
            lane, row = thread % schedule.lanes, block * teams + thread // schedule.lanes
            source = tokens - 1 if last_only else tirx.min(row, rows - 1)
            mean, factor = statistics(schedule, norm, thread, lambda i: x[source, i], count=width, most=width)
            with T.serial(ceildiv(width, schedule.lanes)) as step:
                column = step * schedule.lanes + lane
                with when(tirx.all(column < width, row < rows)):
                    value = f32(x[source, column]) if mean is None else f32(x[source, column]) - mean
                    value = norm.apply(value * factor, *parameters(norm, params, column, width))
                    if multiplier != 1:
                        value = value * f32(multiplier)
                    if added is not None:
                        value = value + f32(added[row, column])
                    store(y, (row, column), value.astype(dtype))
    return finish()


def statistics(
    schedule: Schedule, norm: Normalization, thread: Expr, load: Callable[[Expr], Expr], *, count: Expr, most: int
) -> tuple[Expr | None, Expr]:
    """Mean, if it is subtracted, and factor of the values load(0) ... load(count - 1), by the threads of a team together."""

    def total(of: Callable[[Expr], Expr]) -> Expr:
        """The sum of a function of the values."""
        held = local(1)
        store(held, 0, f32(0.0))
        with T.serial(ceildiv(most, schedule.lanes)) as step:
            i = step * schedule.lanes + thread % schedule.lanes
            with when(i < count):
                add(held, 0, of(f32(load(i))))
        add_over_lanes(held, 1, thread, schedule)
        return held[0]

    mean = hold(total(lambda value: value) / f32(count)) if norm.centers else None
    squares = total(lambda value: value * value if mean is None else (value - mean) * (value - mean))
    return mean, hold(norm.factor(squares, count))


def parameters(norm: Normalization, params: Buffer | None, column: Expr, width: int) -> tuple[Expr | None, Expr | None]:
    """Weight and bias of a column."""
    weight = f32(params[column]) if params is not None and norm.weight else None
    bias = f32(params[norm.weight * width + column]) if params is not None and norm.bias else None
    return weight, bias
