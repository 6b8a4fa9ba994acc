"""What a matrix product does with its finished sums. A thread gets whole units: the rows that an epilogue needs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tvm import tirx

from webcompile.kernels.builder import Buffer, Expr, argument, f32, local, store, when
from webcompile.kernels.heads import Heads
from webcompile.kernels.trigonometry import sine_cosine


class Epilogue(Protocol):
    """What follows a product, and how weight rows are grouped into units for it."""

    def __hash__(self) -> int:
        """Epilogues are keys of the kernel caches."""

    @property
    def dtype(self) -> str:
        """Dtype of what it writes."""

    @property
    def suffix(self) -> str:
        """Part of the kernel's name."""

    @property
    def rows_per_unit(self) -> int:
        """Weight rows of a unit."""

    def rows(self, unit: Expr, num_rows: int) -> list[Expr]:
        """The weight rows of a unit."""

    def declare(self, tokens: Expr, num_rows: int) -> list[Buffer]:
        """Declares the epilogue's kernel arguments, inputs first."""

    def emit(self, buffers: Sequence[Buffer], values: Sequence[Expr], token: Expr, unit: Expr) -> None:
        """Emits the stores of one unit, given the float32 sums of its rows."""


@dataclass(frozen=True)
class Store:
    """y[s, rows] = sums, in `dtype`."""

    dtype: str
    suffix: str = ""
    rows_per_unit: int = 1

    def rows(self, unit: Expr, num_rows: int) -> list[Expr]:
        """See Epilogue."""
        return [unit]

    def declare(self, tokens: Expr, num_rows: int) -> list[Buffer]:
        """y[s, rows]."""
        return [argument("y", (tokens, num_rows), self.dtype)]

    def emit(self, buffers: Sequence[Buffer], values: Sequence[Expr], token: Expr, unit: Expr) -> None:
        """See Epilogue."""
        store(buffers[0], (token, unit), values[0].astype(self.dtype))


@dataclass(frozen=True)
class AddResidual:
    """y[s, rows] = sums + residual[s, rows]."""

    dtype: str
    suffix: str = "_residual"
    rows_per_unit: int = 1

    def rows(self, unit: Expr, num_rows: int) -> list[Expr]:
        """See Epilogue."""
        return [unit]

    def declare(self, tokens: Expr, num_rows: int) -> list[Buffer]:
        """residual[s, rows], y[s, rows]."""
        return [argument(name, (tokens, num_rows), self.dtype) for name in ("residual", "y")]

    def emit(self, buffers: Sequence[Buffer], values: Sequence[Expr], token: Expr, unit: Expr) -> None:
        """See Epilogue."""
        residual, y = buffers
        store(y, (token, unit), (values[0] + f32(residual[token, unit])).astype(self.dtype))


@dataclass(frozen=True)
class SwiGLU:
    """y[s, rows / 2] = silu(gate) * up; rows n and n + rows / 2 are gate and up (Shazeer 2020)."""

    dtype: str
    suffix: str = "_swiglu"
    rows_per_unit: int = 2

    def rows(self, unit: Expr, num_rows: int) -> list[Expr]:
        """See Epilogue."""
        return [unit, unit + num_rows // 2]

    def declare(self, tokens: Expr, num_rows: int) -> list[Buffer]:
        """y[s, rows / 2]."""
        return [argument("y", (tokens, num_rows // 2), self.dtype)]

    def emit(self, buffers: Sequence[Buffer], values: Sequence[Expr], token: Expr, unit: Expr) -> None:
        """See Epilogue."""
        gate, up = values
        store(buffers[0], (token, unit), (gate / (f32(1.0) + tirx.exp(-gate)) * up).astype(self.dtype))


@dataclass(frozen=True)
class RopeAppend:
    """The rows are queries, keys and values, [(h + 2 kv) d]: rotates the first two, appends the last two to the cache.

    Dimension i of a head rotates with i + d / 2, as in Hugging Face's `rotate_half`; they are a unit.
    """

    heads: Heads
    dtype: str
    suffix: str = "_rope_append"
    rows_per_unit: int = 2

    @property
    def half(self) -> int:
        """Units of a head."""
        return self.heads.head_dim // 2

    def rows(self, unit: Expr, num_rows: int) -> list[Expr]:
        """See Epilogue."""
        first = tirx.floordiv(unit, self.half) * self.heads.head_dim + tirx.floormod(unit, self.half)
        return [first, first + self.half]

    def declare(self, tokens: Expr, num_rows: int) -> list[Buffer]:
        """turns[d / 2] uint32, position[1], page_table[pages], cache (written in place at position[0] + s), q[s, h, d]."""
        turns = argument("turns", (self.half,), "uint32")
        position = argument("position", (1,), "int32")
        page_table, cache = self.heads.declare_cache(self.dtype)
        q = argument("q", (tokens, self.heads.num_heads, self.heads.head_dim), self.dtype)
        return [turns, position, page_table, cache, q]

    def emit(self, buffers: Sequence[Buffer], values: Sequence[Expr], token: Expr, unit: Expr) -> None:
        """See Epilogue."""
        turns, position, page_table, cache, q = buffers
        num_heads, num_keys = self.heads.num_heads, self.heads.num_heads + self.heads.num_kv_heads
        head, i = tirx.floordiv(unit, self.half), tirx.floormod(unit, self.half)
        where, page, slot = local(1, "int32"), local(1, "int32"), local(1, "int32")
        store(where, 0, position[0] + token)
        store(page, 0, page_table[tirx.floordiv(where[0], self.heads.page_tokens)])
        store(slot, 0, tirx.floormod(where[0], self.heads.page_tokens))
        pair = local(2)
        store(pair, 0, values[0])
        store(pair, 1, values[1])
        with when(head < num_keys):
            sine, cosine = sine_cosine(turns[i] * where[0].astype("uint32"))
            a, b = local(1), local(1)
            store(a, 0, pair[0])
            store(b, 0, pair[1])
            store(pair, 0, a[0] * cosine - b[0] * sine)
            store(pair, 1, b[0] * cosine + a[0] * sine)
        for part in range(2):
            value, dim = pair[part].astype(self.dtype), i + part * self.half
            with when(head < num_heads):
                store(q, (token, head, dim), value)
            with when(tirx.all(head >= num_heads, head < num_keys)):
                store(cache, (page[0], 0, head - num_heads, slot[0], dim), value)
            with when(head >= num_keys):
                store(cache, (page[0], 1, head - num_keys, slot[0], dim), value)
