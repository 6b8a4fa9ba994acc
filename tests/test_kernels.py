"""Every kernel but attention against numpy in float64, on sizes that fit no tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.kernel_benches import BENCHES, THREADS, Bench, Paged, close, compile_kernel, normal, unwritten
from webcompile.kernels.embedding import embedding
from webcompile.kernels.epilogues import AddResidual, Epilogue, RopeAppend, Store, SwiGLU
from webcompile.kernels.heads import Heads
from webcompile.kernels.matmul import matmul
from webcompile.kernels.norm import rms_norm
from webcompile.kernels.trigonometry import fixed_point_turns
from webcompile.kernels.weights import GroupInt4, Plain, WeightFormat
from webcompile.targets import get_target


def plain(rows: int, columns: int, dtype: str) -> tuple[WeightFormat, list[np.ndarray], np.ndarray]:
    """(format, arrays, the matrix in float64)."""
    weight = normal(rows, columns, dtype=dtype)
    return Plain(dtype), [weight], weight.astype(np.float64)


def int4(rows: int, columns: int, dtype: str) -> tuple[WeightFormat, list[np.ndarray], np.ndarray]:
    """As `plain`. Codes beyond the last column are as random as the others."""
    rng, groups = np.random.default_rng(0), -(-columns // 32)
    words = rng.integers(0, 2**32, (rows, 4 * groups), dtype=np.uint32)
    scale = (rng.standard_normal((rows, groups)) / 7).astype(dtype)
    codes = (words[:, :, None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15).reshape(rows, -1).astype(np.float64)
    return GroupInt4(dtype), [words, scale], ((codes - 7) * np.repeat(scale, 32, 1))[:, :columns]


@dataclass(frozen=True)
class Product:
    """A matrix product to be made: `arguments` are those before the epilogue's, `expected` what the epilogue gets."""

    kernel: Any
    arguments: list[np.ndarray]
    expected: np.ndarray

    @classmethod
    def make(
        cls,
        bench: Bench,
        weights: Callable[..., Any],
        shape: tuple[int, int, int],
        epilogue: Epilogue,
        *,
        bias: bool,
        norm: bool,
    ) -> Product:
        """`shape` is (tokens, rows, columns)."""
        (tokens, rows, columns), dtype, epsilon = shape, bench.dtype, 1e-2
        weight, matrix, dense = weights(rows, columns, dtype)
        x, added, scale = normal(tokens, columns, dtype=dtype), normal(rows, dtype=dtype), normal(columns, dtype=dtype)
        kernel = matmul(
            bench.schedule,
            weight,
            rows,
            columns,
            dtype,
            one_token=tokens == 1,
            epilogue=epilogue,
            bias=bias,
            norm_epsilon=epsilon if norm else None,
        )
        expected = (normalized(x, scale, epsilon) if norm else x) @ dense.T + (added.astype(np.float64) if bias else 0)
        return cls(kernel, [x, *matrix, *([added] if bias else []), *([scale] if norm else [])], expected)


def normalized(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    wide = x.astype(np.float64)
    return wide / np.sqrt(np.mean(wide**2, axis=1, keepdims=True) + epsilon) * weight


@pytest.mark.parametrize("bench", BENCHES)
@pytest.mark.parametrize("weights", [plain, int4])
@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize(("columns", "bias", "norm"), [(100, False, False), (35, True, True)])
def test_matmul(*, bench: Bench, weights: Callable[..., Any], tokens: int, columns: int, bias: bool, norm: bool) -> None:
    product = Product.make(bench, weights, (tokens, 101, columns), Store("float32"), bias=bias, norm=norm)
    out = bench.run(product.kernel, *product.arguments, unwritten(tokens, 101))[-1]
    close(out, product.expected, bench.dtype)


def test_a_gpu_loads_vectors() -> None:
    """TVM keeps arrays of numbers unless told, and WGSL then checks the bounds of each."""
    variant = next(variant for variant in get_target("webgpu").variants if variant.name == "f16")
    kernel = matmul(variant.schedule, GroupInt4("float16"), 64, 64, "float16", one_token=True)
    _, compiled = compile_kernel(kernel, variant.tvm_target)
    wgsl = compiled.mod.imports[0].inspect_source()
    assert "w_codes_ptr : array<vec4<u32>>" in wgsl
    assert "x_ptr : array<vec4<f16>>" in wgsl


@pytest.mark.parametrize("bench", BENCHES)
@pytest.mark.parametrize("tokens", [1, 7])
def test_matmul_adds_to_a_residual(bench: Bench, tokens: int) -> None:
    dtype, residual = bench.dtype, normal(tokens, 202, dtype=bench.dtype)
    product = Product.make(bench, int4, (tokens, 202, 72), AddResidual(dtype), bias=True, norm=False)
    out = bench.run(product.kernel, *product.arguments, residual, unwritten(tokens, 202, dtype=dtype))[-1]
    close(out, product.expected + residual, dtype)


@pytest.mark.parametrize("bench", BENCHES)
@pytest.mark.parametrize("tokens", [1, 7])
def test_matmul_gates(bench: Bench, tokens: int) -> None:
    dtype = bench.dtype
    product = Product.make(bench, int4, (tokens, 202, 100), SwiGLU(dtype), bias=True, norm=True)
    gate, up = np.split(product.expected, 2, axis=1)
    out = bench.run(product.kernel, *product.arguments, unwritten(tokens, 101, dtype=dtype))[-1]
    close(out, gate / (1 + np.exp(-gate)) * up, dtype)


@pytest.mark.parametrize("bench", BENCHES)
@pytest.mark.parametrize(("tokens", "last_only"), [(1, False), (13, False), (13, True)])
def test_rms_norm(bench: Bench, tokens: int, last_only: bool) -> None:
    width, epsilon, dtype = 50, 1e-2, bench.dtype
    x, weight = normal(tokens, width, dtype=dtype), normal(width, dtype=dtype)
    kernel = rms_norm(bench.schedule, width, dtype, epsilon, last_only=last_only)
    expected = normalized(x[-1:] if last_only else x, weight, epsilon)
    close(bench.run(kernel, x, weight, unwritten(*expected.shape, dtype=dtype))[-1], expected, dtype)


@pytest.mark.parametrize("bench", THREADS)
@pytest.mark.parametrize("weights", [plain, int4])
@pytest.mark.parametrize("token_ids", [[10], [3, 0, 10, -1, 11, 2**31 - 1, 3]], ids=["1", "7"])
def test_embedding(bench: Bench, weights: Callable[..., Any], token_ids: list[int]) -> None:
    vocab_size, width, dtype = 11, 44, bench.dtype
    weight, matrix, dense = weights(vocab_size, width, dtype)
    kernel = embedding(bench.schedule, weight, vocab_size, width, dtype, one_token=len(token_ids) == 1)
    out = unwritten(len(token_ids), width, dtype=dtype)
    expected = dense[np.clip(token_ids, 0, vocab_size - 1)]
    close(bench.run(kernel, np.array(token_ids, np.int32), *matrix, out)[-1], expected, dtype)


@pytest.mark.parametrize("bench", BENCHES)
@pytest.mark.parametrize(("tokens", "position"), [(1, 0), (1, 1003), (7, 0), (7, 1003)])
def test_matmul_rotates_and_appends(bench: Bench, tokens: int, position: int) -> None:
    heads = Heads(6, 2, 10, 4)
    dtype, (h, kv, d) = bench.dtype, (heads.num_heads, heads.num_kv_heads, heads.head_dim)
    product = Product.make(bench, int4, (tokens, (h + 2 * kv) * d, 36), RopeAppend(heads, dtype), bias=True, norm=True)
    frequencies = 1e4 ** (-np.arange(0, d, 2) / d)
    before, after = (Paged(heads, position + tokens, dtype) for _ in range(2))
    *_, cache, q = bench.run(
        product.kernel,
        *product.arguments,
        fixed_point_turns(frequencies),
        np.array([position], np.int32),
        before.page_table,
        before.cache,
        unwritten(tokens, h, d, dtype=dtype),
    )
    x = product.expected.reshape(tokens, h + 2 * kv, d)
    angle = np.outer(np.arange(position, position + tokens), frequencies)[:, None]
    a, b = np.split(x, 2, axis=2)
    rotated = np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=2)
    close(q, rotated[:, :h], dtype)
    after.write(position, rotated[:, h : h + kv], x[:, h + kv :])
    close(cache, after.cache, dtype)
