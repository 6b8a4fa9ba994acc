"""Causal attention over the paged cache: out[s, h, d] = sum_t softmax_t(q[s, h] . k[t] * scale) v[t].

A team owns a (token, head) and runs through its cached tokens once, rescaling as the maximum grows (online softmax,
Milakov & Gimelshein 2018). It is one thread, or with subgroups a few that share the head's dimensions. In decode
the teams of a workgroup share the tokens of one head.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from webcompile.kernels.builder import (
    Buffer,
    Expr,
    Schedule,
    add,
    add_over_team,
    argument,
    barrier,
    blocks,
    ceildiv,
    f32,
    kernel,
    local,
    shared,
    store,
    threads,
    when,
)
from webcompile.kernels.heads import Heads

SHARED_NBYTES = 16384
"""Shared memory that every WebGPU device gives a workgroup."""

_LOWEST = -3.0e38
"""Stands for minus infinity, which WGSL may not have."""


@functools.cache
def attention_prefill(schedule: Schedule, heads: Heads, dtype: str, scale: float) -> Any:
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
        total, lanes = tokens * num_heads, _lanes(schedule, head_dim)
        teams = schedule.threads // lanes
        with blocks(schedule, ceildiv(total, teams)) as block, threads(schedule, schedule.threads) as thread:
            index = block * teams + tirx.floordiv(thread, lanes)
            # Teams beyond the end repeat the last one: exchanges within a subgroup need all threads.
            team = tirx.min(index, total - 1)
            token, head = tirx.floordiv(team, num_heads), tirx.floormod(team, num_heads)
            stop = position[0] + token.astype("int32") + 1
            query = _Query(q, token, head, scale, thread, lanes)
            span = (tirx.const(0, "int32"), stop, 1)
            _, denominator, sums = _run_through(schedule, query, page_table, cache, span)
            with when(index < total), query.dimensions(schedule) as (i, dim):
                store(out, (token, head * head_dim + dim), (sums[i] / denominator[0]).astype(dtype))
    return finish()


@functools.cache
def attention_decode(schedule: Schedule, heads: Heads, dtype: str, scale: float) -> Any:
    """Decode: the PrimFunc (q[1, h, d], position[1], page_table[pages], cache, out[1, h d]).

    A workgroup owns a head; its teams take every so-manieth cached token and merge their results in shared memory.
    """
    num_heads, head_dim = heads.num_heads, heads.head_dim
    lanes = _lanes(schedule, head_dim)
    teams = _num_teams(schedule, head_dim)
    num_threads = teams * lanes
    with kernel("attention_decode") as finish:
        q = argument("q", (1, num_heads, head_dim), dtype)
        position = argument("position", (1,), "int32")
        page_table, cache = heads.declare_cache(dtype)
        out = argument("out", (1, num_heads * head_dim), dtype)
        with blocks(schedule, num_heads) as head, threads(schedule, num_threads) as thread:
            team = tirx.floordiv(thread, lanes)
            query = _Query(q, 0, head, scale, thread, lanes)
            span = (team, position[0] + 1, teams)
            maximum, denominator, sums = _run_through(schedule, query, page_table, cache, span)
            if teams == 1:
                with query.dimensions(schedule) as (i, dim):
                    store(out, (0, head * head_dim + dim), (sums[i] / denominator[0]).astype(dtype))
            else:
                parts, maxima, denominators = shared((teams, head_dim)), shared((teams,)), shared((teams,))
                with query.dimensions(schedule) as (i, dim):
                    store(parts, (team, dim), sums[i])
                with when(thread % lanes == 0):
                    store(maxima, team, maximum[0])
                    store(denominators, team, denominator[0])
                barrier()
                with T.serial(ceildiv(head_dim, num_threads)) as step:
                    dim = step * num_threads + thread
                    with when(dim < head_dim):
                        merged = _merge(parts, maxima, denominators, dim)
                        store(out, (0, head * head_dim + dim), merged.astype(dtype))
    return finish()


def _merge(parts: Buffer, maxima: Buffer, denominators: Buffer, dim: Expr) -> Expr:
    """One dimension of the softmax-weighted sum from the teams' parts."""
    teams = int(maxima.shape[0])
    maximum, denominator, value = local(1), local(1), local(1)
    store(maximum, 0, f32(_LOWEST))
    store(denominator, 0, f32(0.0))
    store(value, 0, f32(0.0))
    with T.serial(teams) as team:
        store(maximum, 0, tirx.max(maximum[0], maxima[team]))
    with T.serial(teams) as team:
        factor = local(1)
        store(factor, 0, tirx.exp(maxima[team] - maximum[0]))
        add(denominator, 0, factor[0] * denominators[team])
        add(value, 0, factor[0] * parts[team, dim])
    return value[0] / denominator[0]


def _num_teams(schedule: Schedule, head_dim: int) -> int:
    """Teams of a workgroup in decode: as many as shared memory has room for."""
    teams = max(1, schedule.attention_threads // _lanes(schedule, head_dim))
    while teams > 1 and teams * (head_dim + 2) * 4 > SHARED_NBYTES:
        teams //= 2
    return teams


def _lanes(schedule: Schedule, head_dim: int) -> int:
    """Threads of a team."""
    return schedule.subgroup if schedule.subgroup and head_dim % schedule.subgroup == 0 else 1


@dataclass(frozen=True)
class _Query:
    """One query vector, q[token, head] * scale, and the team that owns it."""

    q: Buffer
    token: Expr
    head: Expr
    scale: float
    thread: Expr
    lanes: int

    @property
    def dims_per_lane(self) -> int:
        """Dimensions of the head that each thread of the team holds."""
        return int(self.q.shape[2]) // self.lanes

    @contextmanager
    def dimensions(self, schedule: Schedule) -> Iterator[tuple[Expr, Expr]]:
        """Loops over this thread's dimensions: (number among its own, dimension of the head). Neighbours interleave."""
        count = self.dims_per_lane
        with T.unroll(count) if schedule.unroll_heads or self.lanes > 1 else T.serial(count) as i:
            yield i, i * self.lanes + self.thread % self.lanes


def _run_through(
    schedule: Schedule, query: _Query, page_table: Buffer, cache: Buffer, span: tuple[Expr, Expr, int]
) -> tuple[Buffer, Buffer, Buffer]:
    """(maximum[1], denominator[1], this thread's unnormalized sums) of a query over tokens start, start + stride ..."""
    start, stop, stride = span
    num_kv_heads, page_tokens = int(cache.shape[2]), int(cache.shape[3])
    kv_head = tirx.floordiv(query.head, int(query.q.shape[1]) // num_kv_heads)
    scaled, sums = local(query.dims_per_lane), local(query.dims_per_lane)
    maximum, denominator = local(1), local(1)
    with query.dimensions(schedule) as (i, dim):
        store(scaled, i, f32(query.q[query.token, query.head, dim]) * f32(query.scale))
        store(sums, i, f32(0.0))
    store(maximum, 0, f32(_LOWEST))
    store(denominator, 0, f32(0.0))
    with T.serial(tirx.max(ceildiv(stop - start, stride), 0)) as step:
        where, page, slot = local(1, "int32"), local(1, "int32"), local(1, "int32")
        store(where, 0, start + step * stride)
        store(page, 0, page_table[tirx.floordiv(where[0], page_tokens)])
        store(slot, 0, tirx.floormod(where[0], page_tokens))
        score, higher, old_factor, factor = local(1), local(1), local(1), local(1)
        store(score, 0, f32(0.0))
        with query.dimensions(schedule) as (i, dim):
            add(score, 0, scaled[i] * f32(cache[page[0], 0, kv_head, slot[0], dim]))
        add_over_team(score, 0, query.thread, query.lanes)
        store(higher, 0, tirx.max(maximum[0], score[0]))
        store(old_factor, 0, tirx.exp(maximum[0] - higher[0]))
        store(factor, 0, tirx.exp(score[0] - higher[0]))
        store(maximum, 0, higher[0])
        store(denominator, 0, denominator[0] * old_factor[0] + factor[0])
        with query.dimensions(schedule) as (i, dim):
            value = f32(cache[page[0], 1, kv_head, slot[0], dim])
            store(sums, i, sums[i] * old_factor[0] + factor[0] * value)
    return maximum, denominator, sums
