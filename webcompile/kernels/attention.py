"""Causal attention over the paged cache: out[s, h, d] = sum_t softmax_t(q[s, h] . k[t] * scale) v[t].

One thread owns a (token, head) and runs through its cached tokens once, rescaling as the maximum grows (online softmax,
Milakov & Gimelshein 2018). In decode a head's tokens are cut into `attention_splits` parts that a second kernel merges.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from webcompile.kernels.builder import (
    Buffer,
    Expr,
    Schedule,
    add,
    argument,
    blocks,
    ceildiv,
    f32,
    kernel,
    local,
    store,
    threads,
    unrolled,
    when,
)
from webcompile.kernels.heads import Heads

_LOWEST = -3.0e38
"""Stands for minus infinity, which WGSL may not have."""


@functools.cache
def attention(schedule: Schedule, heads: Heads, dtype: str, scale: float) -> Any:
    """Prefill: the PrimFunc (q[s, h, d], position[1], page_table[pages], cache, out[s, h d]).

    Token i of q stands at position[0] + i and sees all cached tokens up to itself.
    """
    tokens = tirx.Var("s", "int64")
    num_heads, head_dim = heads.num_heads, heads.head_dim
    with kernel("attention_prefill") as finish:
        q = argument("q", (tokens, num_heads, head_dim), dtype)
        position = argument("position", (1,), "int32")
        page_table, cache = heads.declare_cache(dtype)
        out = argument("out", (tokens, num_heads * head_dim), dtype)
        total = tokens * num_heads
        with (
            blocks(schedule, ceildiv(total, schedule.threads)) as block,
            threads(schedule, schedule.threads) as thread,
            when(block * schedule.threads + thread < total),
        ):
            index = block * schedule.threads + thread
            token, head = tirx.floordiv(index, num_heads), tirx.floormod(index, num_heads)
            stop = position[0] + token.astype("int32") + 1
            query = _Query(q, token, head, scale)
            _, denominator, sums = _run_through(schedule, query, page_table, cache, (tirx.const(0, "int32"), stop))
            with unrolled(schedule, head_dim) as i:
                store(out, (token, head * head_dim + i), (sums[i] / denominator[0]).astype(dtype))
    return finish()


@functools.cache
def attention_split(schedule: Schedule, heads: Heads, dtype: str, scale: float) -> Any:
    """Decode, first part: the PrimFunc (q[1, h, d], position[1], page_table[pages], cache, parts[h, splits, d + 2]).

    parts[..., :d] are unnormalized sums, then the maximum and the denominator they were taken with.
    """
    num_heads, head_dim = heads.num_heads, heads.head_dim
    splits = schedule.attention_splits
    with kernel("attention_split") as finish:
        q = argument("q", (1, num_heads, head_dim), dtype)
        position = argument("position", (1,), "int32")
        page_table, cache = heads.declare_cache(dtype)
        parts = argument("parts", (num_heads, splits, head_dim + 2), "float32")
        total = num_heads * splits
        with (
            blocks(schedule, ceildiv(total, schedule.threads)) as block,
            threads(schedule, schedule.threads) as thread,
            when(block * schedule.threads + thread < total),
        ):
            index = block * schedule.threads + thread
            head, split = tirx.floordiv(index, splits), tirx.floormod(index, splits)
            length = position[0] + 1
            chunk = ceildiv(length, splits)
            span = (split * chunk, tirx.min(length, (split + 1) * chunk))
            maximum, denominator, sums = _run_through(schedule, _Query(q, 0, head, scale), page_table, cache, span)
            with unrolled(schedule, head_dim) as i:
                store(parts, (head, split, i), sums[i])
            store(parts, (head, split, head_dim), maximum[0])
            store(parts, (head, split, head_dim + 1), denominator[0])
    return finish()


@functools.cache
def attention_merge(schedule: Schedule, num_heads: int, head_dim: int, dtype: str) -> Any:
    """Decode, second part: the PrimFunc (parts[h, splits, d + 2], out[1, h d])."""
    splits, total = schedule.attention_splits, num_heads * head_dim
    with kernel("attention_merge") as finish:
        parts = argument("parts", (num_heads, splits, head_dim + 2), "float32")
        out = argument("out", (1, total), dtype)
        with (
            blocks(schedule, ceildiv(total, schedule.threads)) as block,
            threads(schedule, schedule.threads) as thread,
            when(block * schedule.threads + thread < total),
        ):
            index = block * schedule.threads + thread
            head, i = tirx.floordiv(index, head_dim), tirx.floormod(index, head_dim)
            maximum, denominator, value = local(1), local(1), local(1)
            store(maximum, 0, f32(_LOWEST))
            store(denominator, 0, f32(0.0))
            store(value, 0, f32(0.0))
            with T.serial(splits) as split:
                store(maximum, 0, tirx.max(maximum[0], parts[head, split, head_dim]))
            with T.serial(splits) as split:
                factor = local(1)
                store(factor, 0, tirx.exp(parts[head, split, head_dim] - maximum[0]))
                add(denominator, 0, factor[0] * parts[head, split, head_dim + 1])
                add(value, 0, factor[0] * parts[head, split, i])
            store(out, (0, index), (value[0] / denominator[0]).astype(dtype))
    return finish()


@dataclass(frozen=True)
class _Query:
    """One query vector: q[token, head], to be scaled."""

    q: Buffer
    token: Expr
    head: Expr
    scale: float


def _run_through(
    schedule: Schedule, query: _Query, page_table: Buffer, cache: Buffer, span: tuple[Expr, Expr]
) -> tuple[Buffer, Buffer, Buffer]:
    """(maximum[1], denominator[1], sums[d]) of a query over the cached tokens of a span; sums are unnormalized."""
    start, stop = span
    num_heads, head_dim = int(query.q.shape[1]), int(query.q.shape[2])
    num_kv_heads, page_tokens = int(cache.shape[2]), int(cache.shape[3])
    kv_head = tirx.floordiv(query.head, num_heads // num_kv_heads)
    scaled, sums = local(head_dim), local(head_dim)
    maximum, denominator = local(1), local(1)
    with unrolled(schedule, head_dim) as i:
        store(scaled, i, f32(query.q[query.token, query.head, i]) * f32(query.scale))
        store(sums, i, f32(0.0))
    store(maximum, 0, f32(_LOWEST))
    store(denominator, 0, f32(0.0))
    with T.serial(tirx.max(stop - start, 0)) as step:
        where, page, slot = local(1, "int32"), local(1, "int32"), local(1, "int32")
        store(where, 0, start + step)
        store(page, 0, page_table[tirx.floordiv(where[0], page_tokens)])
        store(slot, 0, tirx.floormod(where[0], page_tokens))
        score, higher, old_factor, factor = local(1), local(1), local(1), local(1)
        store(score, 0, f32(0.0))
        with unrolled(schedule, head_dim) as i:
            add(score, 0, scaled[i] * f32(cache[page[0], 0, kv_head, slot[0], i]))
        store(higher, 0, tirx.max(maximum[0], score[0]))
        store(old_factor, 0, tirx.exp(maximum[0] - higher[0]))
        store(factor, 0, tirx.exp(score[0] - higher[0]))
        store(maximum, 0, higher[0])
        store(denominator, 0, denominator[0] * old_factor[0] + factor[0])
        with unrolled(schedule, head_dim) as i:
            store(sums, i, sums[i] * old_factor[0] + factor[0] * f32(cache[page[0], 1, kv_head, slot[0], i]))
    return maximum, denominator, sums
