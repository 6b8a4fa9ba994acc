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
    """A storage layout of a matrix."""

    def __hash__(self) -> int:
        """Formats are keys of the kernel caches."""

    @property
    def key(self) -> str:
        """Short name, part of kernel names."""

    def declare(self, prefix: str, rows: int, columns: int) -> list[Buffer]:
        """Declares the kernel arguments of a [rows, columns] matrix, in the order of the scheme's parameters."""

    def load(self, buffers: Sequence[Buffer], row: Expr, block: Expr) -> tuple[list[Expr], Expr | None]:
        """Weights BLOCK * block ... of a row as float32, and the factor they all still need (None for one)."""


@dataclass(frozen=True)
class Plain:
    """One number per weight: [rows, columns] of `dtype`."""

    dtype: str

    @property
    def key(self) -> str:
        """See WeightFormat."""
        return {"float32": "f32", "float16": "f16"}[self.dtype]

    def declare(self, prefix: str, rows: int, columns: int) -> list[Buffer]:
        """See WeightFormat."""
        return [argument(f"{prefix}_weight", (rows, columns), self.dtype)]

    def load(self, buffers: Sequence[Buffer], row: Expr, block: Expr) -> tuple[list[Expr], Expr | None]:
        """See WeightFormat."""
        columns = int(buffers[0].shape[1])
        last = columns - 1
        index = [block * BLOCK + i for i in range(BLOCK)]
        if columns % BLOCK:
            index = [tirx.min(i, last) for i in index]
        return [f32(buffers[0][row, i]) for i in index], None


@dataclass(frozen=True)
class GroupInt4:
    """Eight 4-bit codes per uint32, lowest bits first, one scale per `group` columns: (code - 7) * scale."""

    scale_dtype: str
    group: int = 32

    @property
    def key(self) -> str:
        """See WeightFormat."""
        return {"float32": "q4f32", "float16": "q4f16"}[self.scale_dtype]

    def declare(self, prefix: str, rows: int, columns: int) -> list[Buffer]:
        """See WeightFormat."""
        groups = ceildiv(columns, self.group)
        return [
            argument(f"{prefix}_codes", (rows, groups * self.group // BLOCK), "uint32"),
            argument(f"{prefix}_scale", (rows, groups), self.scale_dtype),
        ]

    def load(self, buffers: Sequence[Buffer], row: Expr, block: Expr) -> tuple[list[Expr], Expr | None]:
        """See WeightFormat."""
        codes, scale = buffers
        word = local(1, "uint32")
        store(word, 0, codes[row, block])
        nibbles = [(word[0] >> tirx.const(4 * i, "uint32")) & tirx.const(15, "uint32") for i in range(BLOCK)]
        return [f32(nibble) - f32(7.0) for nibble in nibbles], f32(scale[row, block // (self.group // BLOCK)])
