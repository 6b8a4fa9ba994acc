"""Rotary position embedding of queries and keys, and the append of keys and values to the paged cache.

Angles are held as fractions of a turn in 32-bit fixed point: frequency and position multiply modulo 2^32, which is
exact modulo one turn, so positions need no range reduction and every target computes the same bits. Sine and cosine
are polynomials on [-pi/4, pi/4] (minimax coefficients of the Cephes library), good to one unit in the last place or two.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import tirx

from webcompile.kernels.builder import (
    Expr,
    Schedule,
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
from webcompile.kernels.heads import Heads


def fixed_point_turns(inverse_frequencies: Sequence[float]) -> np.ndarray:
    """Radians per position to turns per position, as uint32 fractions of a turn in units of 2^-32."""
    turns = np.asarray(inverse_frequencies, np.float64) / (2 * math.pi)
    return np.round((turns % 1.0) * 2**32).astype(np.uint64).astype(np.uint32)


@functools.cache
def rope_append(schedule: Schedule, heads: Heads, dtype: str, *, one_token: bool) -> Any:
    """The PrimFunc (qkv[s, (h + 2 kv) d], turns[d / 2] uint32, position[1], page_table[pages], cache, q[s, h, d]).

    `cache` is [num_pages, 2, kv, page_tokens, d] and written in place at positions position[0] + 0..s-1. Dimension i
    rotates with i + d / 2, as in Hugging Face's `rotate_half`.
    """
    tokens: Expr = 1 if one_token else tirx.Var("s", "int64")
    num_heads, num_kv_heads, head_dim = heads.num_heads, heads.num_kv_heads, heads.head_dim
    half, num_parts = head_dim // 2, num_heads + 2 * num_kv_heads
    with kernel("rope_append" + ("" if one_token else "_tiled")) as finish:
        qkv = argument("qkv", (tokens, num_parts * head_dim), dtype)
        turns = argument("turns", (half,), "uint32")
        position = argument("position", (1,), "int32")
        page_table, cache = heads.declare_cache(dtype)
        q = argument("q", (tokens, num_heads, head_dim), dtype)
        total = tokens * (num_parts * half)
        with (
            blocks(schedule, ceildiv(total, schedule.threads)) as block,
            threads(schedule, schedule.threads) as thread,
            when(block * schedule.threads + thread < total),
        ):
            index = block * schedule.threads + thread
            token = tirx.floordiv(index, num_parts * half)
            head = tirx.floordiv(tirx.floormod(index, num_parts * half), half)
            i = tirx.floormod(index, half)
            where = local(1, "int32")
            store(where, 0, position[0] + token.astype("int32") if not isinstance(token, int) else position[0])
            a, b = f32(qkv[token, head * head_dim + i]), f32(qkv[token, head * head_dim + half + i])
            page = page_table[tirx.floordiv(where[0], heads.page_tokens)]
            slot = tirx.floormod(where[0], heads.page_tokens)
            rotated = local(2)
            with when(head < num_heads + num_kv_heads):
                sine, cosine = _sine_cosine(turns[i] * where[0].astype("uint32"))
                store(rotated, 0, a * cosine - b * sine)
                store(rotated, 1, b * cosine + a * sine)
            with when(head >= num_heads + num_kv_heads):
                store(rotated, 0, a)
                store(rotated, 1, b)
            for part in range(2):
                value, dim = rotated[part].astype(dtype), i + part * half
                with when(head < num_heads):
                    store(q, (token, head, dim), value)
                with when(tirx.all(head >= num_heads, head < num_heads + num_kv_heads)):
                    store(cache, (page, 0, head - num_heads, slot, dim), value)
                with when(head >= num_heads + num_kv_heads):
                    store(cache, (page, 1, head - num_heads - num_kv_heads, slot, dim), value)
    return finish()


def _sine_cosine(phase: Expr) -> tuple[Expr, Expr]:
    """Sine and cosine of a uint32 phase in units of 2^-32 turns."""
    held = local(1, "uint32")
    store(held, 0, phase + tirx.const(1 << 29, "uint32"))
    quadrant = held[0] >> tirx.const(30, "uint32")
    # What is left after whole quarter turns, as a signed number: [-1/8, 1/8) turn.
    rest = (held[0] & tirx.const((1 << 30) - 1, "uint32")).astype("int32") - tirx.const(1 << 29, "int32")
    r, square = local(1), local(1)
    store(r, 0, f32(rest) * f32(2 * math.pi / 2**32))
    store(square, 0, r[0] * r[0])
    z = square[0]
    sine, cosine = local(1), local(1)
    store(sine, 0, r[0] + r[0] * z * (f32(-1.6666654611e-1) + z * (f32(8.3321608736e-3) - z * f32(1.9515295891e-4))))
    even = f32(4.166664568298827e-2) + z * (f32(-1.388731625493765e-3) + z * f32(2.443315711809948e-5))
    store(cosine, 0, f32(1.0) - z * f32(0.5) + z * z * even)

    def pick(in_0: Expr, in_1: Expr, in_2: Expr, in_3: Expr) -> Expr:
        low = tirx.Select(quadrant == tirx.const(0, "uint32"), in_0, in_1)
        high = tirx.Select(quadrant == tirx.const(2, "uint32"), in_2, in_3)
        return tirx.Select(quadrant < tirx.const(2, "uint32"), low, high)

    s, c = sine[0], cosine[0]
    return pick(s, c, -s, -c), pick(c, -s, -c, s)
