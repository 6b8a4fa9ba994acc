"""Where kernels are tested: every device that runs without a browser, and what tests compare on them.

"cpu" is the target "cpu". All other devices run the WGSL of the target "webgpu", in the target's own schedules and in
some that cut work differently.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import tirx

from tests.webgpu_device import WebGPUDevice, adapters
from webcompile.kernels.builder import Schedule
from webcompile.kernels.heads import Heads
from webcompile.targets import VariantSpec, get_target

CPU = get_target("cpu").variants[0]
WEBGPU = get_target("webgpu").variants
SCHEDULES: dict[str, dict[str, Any]] = {
    "4-lanes": {"threads": 64, "lanes": 4, "row_tile": 1, "token_tile": 3, "subgroup": 0, "attention_threads": 5},
    "8-lanes": {"threads": 32, "lanes": 8, "row_tile": 5, "token_tile": 1, "subgroup": 0, "attention_threads": 1}
    | {"product_tile": (64, 32)},
    "odd-tiles": {"threads": 48, "lanes": 1, "row_tile": 3, "token_tile": 3, "subgroup": 0, "attention_threads": 48},
    "subgroups": {"threads": 64, "lanes": 1, "row_tile": 3, "token_tile": 2, "subgroup": 4, "attention_threads": 64},
}
"""Beside the target's own."""
OTHERWISE = {"unroll_heads": False, "product_tile": None}
"""What these schedules leave out."""
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
        variants[name] = replace(base, schedule=replace(base.schedule, **{**OTHERWISE, **schedule}))
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
