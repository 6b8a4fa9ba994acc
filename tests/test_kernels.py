"""Every kernel against numpy in float64, on sizes that fit no tile, on every device that runs without a browser.

"cpu" is the target "cpu". All other devices run the WGSL of the target "webgpu", in the target's own schedules and in
some that cut work differently.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import tirx

from tests.webgpu_device import WebGPUDevice, adapters
from webcompile.kernels.attention import attention_decode, attention_prefill
from webcompile.kernels.builder import Schedule
from webcompile.kernels.embedding import embedding
from webcompile.kernels.epilogues import AddResidual, Epilogue, RopeAppend, Store, SwiGLU
from webcompile.kernels.heads import Heads
from webcompile.kernels.matmul import matmul
from webcompile.kernels.norm import rms_norm
from webcompile.kernels.trigonometry import fixed_point_turns
from webcompile.kernels.weights import GroupInt4, Plain, WeightFormat
from webcompile.targets import VariantSpec, get_target

CPU = get_target("cpu").variants[0]
WEBGPU = get_target("webgpu").variants
SCHEDULES: dict[str, dict[str, Any]] = {
    "4-lanes": {"threads": 64, "lanes": 4, "row_tile": 1, "token_tile": 3, "subgroup": 0, "attention_threads": 5},
    "8-lanes": {"threads": 32, "lanes": 8, "row_tile": 5, "token_tile": 1, "subgroup": 0, "attention_threads": 1},
    "odd-tiles": {"threads": 48, "lanes": 1, "row_tile": 3, "token_tile": 3, "subgroup": 0, "attention_threads": 48},
    "subgroups": {"threads": 64, "lanes": 1, "row_tile": 3, "token_tile": 2, "subgroup": 4, "attention_threads": 64},
}
"""Beside the target's own."""
TOLERANCE = {"float32": 5e-6, "float16": 2e-3}
"""Of the largest value expected."""
ADAPTERS = adapters()


@dataclass(frozen=True)
class Bench:
    """A device, and how kernels are made for it."""

    device: WebGPUDevice | None
    """None is the CPU."""
    variant: VariantSpec

    @property
    def dtype(self) -> str:
        return self.variant.dtype

    @property
    def schedule(self) -> Schedule:
        return self.variant.schedule

    def run(self, kernel: Any, *arrays: np.ndarray) -> list[np.ndarray]:
        """The arguments of a kernel after a call with `arrays`."""
        function, compiled = compile_kernel(kernel, self.variant.tvm_target)
        if self.device is not None:
            return self.device.run(function, compiled.mod.imports[0].inspect_source(), arrays)
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        compiled[str(kernel.attrs["global_symbol"])](*tensors)
        return [tensor.numpy() for tensor in tensors]


@functools.cache
def compile_kernel(kernel: Any, tvm_target: Any) -> tuple[Any, Any]:
    """(the kernel as it is lowered, the compiled module), made as `webcompile.build.library` makes them."""
    name = str(kernel.attrs["global_symbol"])
    module = tirx.transform.ForceNarrowIndexToInt32()(tvm.IRModule({name: kernel}))
    with tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
        return module[name], tvm.compile(module, tvm_target)


def benches() -> list[Any]:
    """The CPU, and each variant of WebGPU on the first adapter that has what it needs."""
    params = [pytest.param(Bench(None, CPU), id="cpu")]
    if not ADAPTERS:
        params.append(pytest.param(None, id="webgpu", marks=pytest.mark.skip(reason="no PyPI wgpu or no Vulkan driver")))
    variants = {variant.name: variant for variant in WEBGPU}
    for name, schedule in SCHEDULES.items():
        features = ("subgroups",) if schedule["subgroup"] else ()
        base = next(variant for variant in WEBGPU if variant.features == features)
        variants[name] = replace(base, schedule=replace(base.schedule, unroll_heads=False, **schedule))
    for name, variant in variants.items():
        able = [device for device in ADAPTERS.values() if device.features.issuperset(variant.features)]
        params += [pytest.param(Bench(device, variant), id=f"{device.name}-{name}") for device in able[:1]]
    return params


BENCHES = benches()
THREADS = [param for param in BENCHES if param.id.endswith(("cpu", "webgpu", "-f32", "-f16", "-odd-tiles"))]
"""Enough for kernels that take nothing else from their schedule."""


def close(actual: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    """NaN must stay NaN: it stands for what no kernel may write, or read."""
    bound = TOLERANCE[dtype] * np.nanmax(np.abs(expected))
    np.testing.assert_allclose(actual.astype(np.float64), expected.astype(np.float64), rtol=0, atol=bound)


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape).astype(dtype)


def unwritten(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.full(shape, np.nan, dtype)


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


class Paged:
    """A cache whose pages lie in no order; slots are NaN until written."""

    def __init__(self, heads: Heads, length: int, dtype: str) -> None:
        self.page_tokens = heads.page_tokens
        pages = -(-length // heads.page_tokens)
        # Two pages more than are in use: entries of the table that no kernel may follow, and pages that it does not name.
        self.page_table = np.append(np.random.default_rng(0).permutation(pages + 2)[:pages], [10**6] * 2).astype(np.int32)
        self.cache = unwritten(pages + 2, 2, heads.num_kv_heads, heads.page_tokens, heads.head_dim, dtype=dtype)

    def write(self, position: int, keys: np.ndarray, values: np.ndarray) -> None:
        """Keys and values [s, kv, d] at `position` and after."""
        for token, pair in enumerate(zip(keys, values, strict=True), position):
            page = self.page_table[token // self.page_tokens]
            self.cache[page, :, :, token % self.page_tokens] = pair


HEADS = [Heads(6, 2, 10, 4), Heads(9, 3, 64, 16), Heads(5, 5, 12, 4)]
name_of_heads = "{0.num_heads}x{0.num_kv_heads}x{0.head_dim}".format


@pytest.mark.parametrize("bench", BENCHES)
@pytest.mark.parametrize("heads", HEADS[:1], ids=name_of_heads)
@pytest.mark.parametrize(("tokens", "position"), [(1, 0), (1, 1003), (7, 0), (7, 1003)])
def test_matmul_rotates_and_appends(bench: Bench, heads: Heads, tokens: int, position: int) -> None:
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


@pytest.mark.parametrize("bench", BENCHES)
@pytest.mark.parametrize("heads", HEADS, ids=name_of_heads)
@pytest.mark.parametrize(("tokens", "position"), [(7, 0), (7, 30), (1, 0), (1, 37)])
def test_attention(bench: Bench, heads: Heads, tokens: int, position: int) -> None:
    """Prefill; for one token decode, where position 0 leaves all threads of a head but one without work."""
    dtype, (h, kv, d) = bench.dtype, (heads.num_heads, heads.num_kv_heads, heads.head_dim)
    length, scale = position + tokens, 0.3
    q, keys = normal(tokens, h, d, dtype=dtype), normal(length, kv, d, dtype=dtype)
    values = keys[::-1, :, ::-1]
    paged = Paged(heads, length, dtype)
    paged.write(0, keys, values)
    kernel = (attention_decode if tokens == 1 else attention_prefill)(bench.schedule, heads, dtype, scale)
    out = unwritten(tokens, h * d, dtype=dtype)
    out = bench.run(kernel, q, np.array([position], np.int32), paged.page_table, paged.cache, out)[-1]

    scores = np.einsum("shd,thd->hst", q.astype(np.float64), np.repeat(keys, h // kv, 1)) * scale
    scores[:, np.arange(length) > position + np.arange(tokens)[:, None]] = -np.inf
    shares = np.exp(scores - scores.max(axis=2, keepdims=True))
    shares /= shares.sum(axis=2, keepdims=True)
    close(out, np.einsum("hst,thd->shd", shares, np.repeat(values, h // kv, 1)).reshape(tokens, -1), dtype)
