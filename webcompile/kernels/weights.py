"""How kernels read weights: a format says which buffers hold a matrix and how eight neighbouring weights load.

The layouts are those of `webcompile.quantize`; `matrix[n, k]` is row n (output), column k (input).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tvm import tirx
from tvm.tirx.script import builder as T

from webcompile.kernels.builder import Buffer, Expr, are_vectors, argument, ceildiv, elements, exact, f32, hold, vectors

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

    @property
    def multiples(self) -> tuple[float, ...]:
        """Code i of a block comes times multiples[i], a power of two: cheaper to undo on activations than on weights."""

    def widen(self, buffers: Sequence[Buffer]) -> list[Buffer]:
        """The same buffers, seen as vectors where they can be: see builder.vectors."""

    def codes(self, buffers: Sequence[Buffer], row: Expr, block: Expr, count: int = 1) -> list[Expr]:
        """Codes BLOCK * block ... of a row as float32, times `multiples`; those of `count` blocks.

        Four blocks at once for widened buffers; there `block` is a multiple of four.
        """

    def quad(self, buffers: Sequence[Buffer], row: Expr, quad: Expr) -> list[Expr]:
        """Weights 4 quad ... 4 quad + 3 of a row as float32, whole."""

    def scale(self, buffers: Sequence[Buffer], row: Expr, block: Expr) -> Expr:
        """The scale of a row's block as float32."""


@dataclass(frozen=True)
class Plain:
    """One number per weight: [rows, columns] of `dtype`."""

    dtype: str
    blocks_per_scale: int = 4
    offset: float = 0.0
    multiples: tuple[float, ...] = (1.0,) * BLOCK

    @property
    def key(self) -> str:
        """See WeightFormat."""
        return {"float32": "f32", "float16": "f16"}[self.dtype]

    def declare(self, prefix: str, rows: int, columns: int) -> list[Buffer]:
        """See WeightFormat."""
        return [argument(f"{prefix}_weight", (rows, columns), self.dtype)]

    def widen(self, buffers: Sequence[Buffer]) -> list[Buffer]:
        """See WeightFormat."""
        return [buffer if int(buffer.shape[1]) % 4 else vectors(buffer) for buffer in buffers]

    def codes(self, buffers: Sequence[Buffer], row: Expr, block: Expr, count: int = 1) -> list[Expr]:
        """See WeightFormat. Columns beyond the end repeat others."""
        quads = (self.quad(buffers, row, block * (BLOCK // 4) + i) for i in range(count * BLOCK // 4))
        return [code for quad in quads for code in quad]

    def quad(self, buffers: Sequence[Buffer], row: Expr, quad: Expr) -> list[Expr]:
        """See WeightFormat. Columns beyond the end repeat others."""
        matrix, last = buffers[0], int(buffers[0].shape[1]) - 1
        if are_vectors(matrix):
            return [f32(code) for code in elements(matrix[row, tirx.min(quad, last)])]
        index = [quad * 4 + i for i in range(4)]
        if (last + 1) % (self.blocks_per_scale * BLOCK):
            index = [tirx.min(i, last) for i in index]
        return [f32(matrix[row, i]) for i in index]

    def scale(self, buffers: Sequence[Buffer], row: Expr, block: Expr) -> Expr:
        """See WeightFormat."""
        return f32(1.0)


@dataclass(frozen=True)
class GroupInt4:
    """Eight 4-bit codes per uint32, lowest bits first, one scale per `group` columns: (code - 7) * scale."""

    scale_dtype: str
    group: int = 32
    offset: float = 7.0
    multiples: tuple[float, ...] = (*(16.0**i for i in range(BLOCK - 1)), 1.0)

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

    def widen(self, buffers: Sequence[Buffer]) -> list[Buffer]:
        """See WeightFormat."""
        return [vectors(buffers[0]), buffers[1]]

    def codes(self, buffers: Sequence[Buffer], row: Expr, block: Expr, count: int = 1) -> list[Expr]:
        """See WeightFormat."""
        if are_vectors(buffers[0]):
            words = [word for i in range(0, count, 4) for word in elements(buffers[0][row, tirx.floordiv(block + i, 4)])]
        else:
            words = [T.bind(buffers[0][row, block + i]) for i in range(count)]
        return [code for word in words for code in self._unpack(word)]

    def quad(self, buffers: Sequence[Buffer], row: Expr, quad: Expr) -> list[Expr]:
        """See WeightFormat."""
        block = tirx.floordiv(quad, BLOCK // 4)
        shift = (tirx.floormod(quad, BLOCK // 4) * 16).astype("uint32")
        word = T.bind(buffers[0][row, block] >> shift)
        scale = hold(self.scale(buffers, row, block))
        codes = zip(self._unpack(word)[:4], self.multiples, strict=False)
        return [(code * exact(1 / multiple) - f32(self.offset)) * scale for code, multiple in codes]

    def _unpack(self, word: Expr) -> list[Expr]:
        """A code is not shifted down but left where it stands; the last one would touch the sign. Signed, because few
        processors convert unsigned numbers to float in one instruction."""
        masked = [word & tirx.const(15 << 4 * i, "uint32") for i in range(BLOCK - 1)]
        return [f32(bits.astype("int32")) for bits in (*masked, word >> tirx.const(4 * (BLOCK - 1), "uint32"))]

    def scale(self, buffers: Sequence[Buffer], row: Expr, block: Expr) -> Expr:
        """See WeightFormat."""
        return f32(buffers[1][row, tirx.floordiv(block, self.blocks_per_scale)])
