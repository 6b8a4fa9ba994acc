"""Normalization by groups of columns, with a gate before or after: y = norm(x act(z)), or norm(x) act(z)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from webcompile.kernels.activations import ACTIVATIONS
from webcompile.kernels.builder import (
    Expr,
    Schedule,
    argument,
    blocks,
    ceildiv,
    f32,
    hold,
    kernel,
    store,
    threads,
    when,
)
from webcompile.kernels.norm import Normalization, parameters, statistics


@dataclass(frozen=True)
class GatedNorm:
    """Its parameters are those of `norm`, for each column or, if `shared`, for each column of a group."""

    norm: Normalization
    groups: int
    width: int
    activation: str = "silu"
    gates_first: bool = False
    shared: bool = False
    gate_columns: int = 0
    """Columns of the array that has the gate; 0 for `width`."""
    gate_first: int = 0
    """The gate's first column there."""

    @property
    def parameters(self) -> int:
        """Numbers in its array of parameters."""
        return self.norm.parts * self.params_width

    @property
    def params_width(self) -> int:
        """Columns that have parameters of their own."""
        return self.width // self.groups if self.shared else self.width


@cache
def gated_norm(schedule: Schedule, form: GatedNorm, dtype: str, *, one_token: bool) -> Any:
    """The PrimFunc (x[s, width], gate[s, gate_columns], params[parameters], y[s, width]); a team takes a token's group."""
    tokens: Expr = 1 if one_token else tirx.Var("s", "int64")
    size, lanes, teams = form.width // form.groups, schedule.lanes, schedule.threads // schedule.lanes
    with kernel(f"gated_norm_{form.groups}x{size}" + ("" if one_token else "_tiled")) as finish:
        x = argument("x", (tokens, form.width), dtype)
        gate = argument("gate", (tokens, form.gate_columns or form.width), dtype)
        params = argument("params", (form.parameters,), dtype)
        y = argument("y", (tokens, form.width), dtype)
        with (
            blocks(schedule, tokens, "y") as token,
            blocks(schedule, ceildiv(form.groups, teams)) as block,
            threads(schedule, schedule.threads) as thread,
        ):
            lane, unit = thread % lanes, block * teams + thread // lanes
            first = tirx.min(unit, form.groups - 1) * size

            def gates(column: Expr) -> Expr:
                return ACTIVATIONS[form.activation](hold(f32(gate[token, form.gate_first + column])))

            def load(i: Expr) -> Expr:
                value = f32(x[token, first + i])
                return value * gates(first + i) if form.gates_first else value

            mean, factor = statistics(schedule, form.norm, thread, load, count=size, most=size)
            with T.serial(ceildiv(size, lanes)) as step:
                i = step * lanes + lane
                with when(tirx.all(i < size, unit < form.groups)):
                    value = load(i) if mean is None else load(i) - mean
                    own = i if form.shared else first + i
                    value = form.norm.apply(value * factor, *parameters(form.norm, params, own, form.params_width))
                    if not form.gates_first:
                        value = value * gates(first + i)
                    store(y, (token, first + i), value.astype(dtype))
    return finish()
