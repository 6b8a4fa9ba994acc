"""How kernels read weights: a format says which buffers hold a matrix and how eight neighbouring weights load.

The layouts are those of `webcompile.quantize`; `matrix[n, k]` is row n (output), column k (input).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tvm import tirx

from webcompile.kernels.builder import Buffer, Expr, argument, ceildiv, f32, local, store

BLOCK = 8
"""Weights that a format loads at once."""


class WeightFormat(Protocol):
    """A storage layout of a matrix: weight = (code - offset) * scale, with one scale for some neighbouring columns."""

    def __hash__(self) -> int:
        """Formats are keys of the kernel caches."""

    @property
    def key(self) -> str:
        """Short name, part of kernel names."""

    @property
    def blocks_per_scale(self) -> int:
        """Neighbouring blocks that share a scale."""

    @property
    def offset(self) -> float:
        """What is subtracted from every code."""

    def declare(self, prefix: str, rows: int, columns: int) -> list[Buffer]:
        """Declares the kernel arguments of a [rows, columns] matrix, in the order of the scheme's parameters."""

    def codes(self, buffers: Sequence[Buffer], row: Expr, block: Expr) -> list[Expr]:
        """Codes BLOCK * block ... of a row as float32."""

    def scale(self, buffers: Sequence[Buffer], row: Expr, block: Expr) -> Expr:
        """The scale of a row's block as float32."""


@dataclass(frozen=True)
class Plain:
    """One number per weight: [rows, columns] of `dtype`."""

    dtype: str
    blocks_per_scale: int = 4
    offset: float = 0.0

    @property
    def key(self) -> str:
        """See WeightFormat."""
        return {"float32": "f32", "float16": "f16"}[self.dtype]

    def declare(self, prefix: str, rows: int, columns: int) -> list[Buffer]:
        """See WeightFormat."""
        return [argument(f"{prefix}_weight", (rows, columns), self.dtype)]

    def codes(self, buffers: Sequence[Buffer], row: Expr, block: Expr) -> list[Expr]:
        """See WeightFormat. Columns beyond the end repeat the last one."""
        columns = int(buffers[0].shape[1])
        index = [block * BLOCK + i for i in range(BLOCK)]
        if columns % BLOCK:
            index = [tirx.min(i, columns - 1) for i in index]
        return [f32(buffers[0][row, i]) for i in index]

    def scale(self, buffers: Sequence[Buffer], row: Expr, block: Expr) -> Expr:
        """See WeightFormat."""
        return f32(1.0)


@dataclass(frozen=True)
class GroupInt4:
    """Eight 4-bit codes per uint32, lowest bits first, one scale per `group` columns: (code - 7) * scale."""

    scale_dtype: str
    group: int = 32
    offset: float = 7.0

    @property
    def key(self) -> str:
        """See WeightFormat."""
        return {"float32": "q4f32", "float16": "q4f16"}[self.scale_dtype]

    @property
    def blocks_per_scale(self) -> int:
        """See WeightFormat."""
        return self.group // BLOCK

    def declare(self, prefix: str, rows: int, columns: int) -> list[Buffer]:
        """See WeightFormat."""
        groups = ceildiv(columns, self.group)
        return [
            argument(f"{prefix}_codes", (rows, groups * self.group // BLOCK), "uint32"),
            argument(f"{prefix}_scale", (rows, groups), self.scale_dtype),
        ]

    def codes(self, buffers: Sequence[Buffer], row: Expr, block: Expr) -> list[Expr]:
        """See WeightFormat."""
        word = local(1, "uint32")
        store(word, 0, buffers[0][row, block])
        return [f32((word[0] >> tirx.const(4 * i, "uint32")) & tirx.const(15, "uint32")) for i in range(BLOCK)]

    def scale(self, buffers: Sequence[Buffer], row: Expr, block: Expr) -> Expr:
        """See WeightFormat."""
        return f32(buffers[1][row, tirx.floordiv(block, self.blocks_per_scale)])
