"""What the two ways to multiply have in common: what they read, and what a thread has when it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from webcompile.kernels.builder import Buffer, Expr, are_vectors, elements, f32
from webcompile.kernels.epilogues import Epilogue
from webcompile.kernels.weights import BLOCK, WeightFormat


@dataclass(frozen=True)
class Operands:
    """x[tokens, columns] times a weight [rows, columns], whose rows come in units of the epilogue.

    With `norm`, x is scaled by it, and its squares are summed as well.
    """

    x: Buffer
    norm: Buffer | None
    weight: WeightFormat
    matrix: Sequence[Buffer]
    epilogue: Epilogue
    tokens: Expr
    rows: int
    columns: int

    @property
    def whole_groups(self) -> bool:
        """Whether the columns fill their groups; else loads must not run over their end."""
        return self.columns % (self.weight.blocks_per_scale * BLOCK) == 0

    @property
    def num_units(self) -> int:
        """Units of the weight."""
        return self.rows // self.epilogue.rows_per_unit

    def unit_rows(self, unit: Expr) -> list[Expr]:
        """The weight rows of a unit; units beyond the end repeat the last one."""
        return self.epilogue.rows(tirx.min(unit, self.num_units - 1), self.rows)

    def token(self, token: Expr) -> Expr:
        """A row of x; tokens beyond the end repeat the last one."""
        return token if isinstance(self.tokens, int) else tirx.min(token, self.tokens - 1)

    def load(self, buffer: Buffer, row: Expr | None, column: Expr) -> Expr:
        """buffer[row, column] or buffer[column] of x or the norm as float32, zero beyond the last column."""
        if self.whole_groups:
            return f32(buffer[column] if row is None else buffer[row, column])
        # Not a branch: dozens of them in a row take SwiftShader's compiler all memory.
        last = tirx.min(column, self.columns - 1)
        return f32(buffer[last] if row is None else buffer[row, last]) * f32(column < self.columns)

    def load_quad(self, buffer: Buffer, row: Expr | None, quad: Expr) -> list[Expr]:
        """Columns 4 quad ... of x or the norm."""
        if not are_vectors(buffer):
            return [self.load(buffer, row, quad * 4 + i) for i in range(4)]
        if self.whole_groups:
            return [f32(value) for value in elements(buffer[quad] if row is None else buffer[row, quad])]
        last = tirx.min(quad, self.columns // 4 - 1)
        inside = f32(quad < self.columns // 4)
        return [f32(value) * inside for value in elements(buffer[last] if row is None else buffer[row, last])]


@dataclass(frozen=True)
class Share:
    """What one thread has when it is done: the sums of its units by its tokens, each given by its number."""

    unit: Callable[[Expr], Expr]
    num_units: int
    token: Callable[[Expr], Expr]
    num_tokens: int
    value: Callable[[Expr, int, Expr], Expr]
    """(unit, row of the unit, token) → the sum."""
    square: Callable[[Expr], Expr]
    """token → the sum of its squares, if there is a norm."""
    owned: Expr
    """Whether this thread is the one to write them."""
