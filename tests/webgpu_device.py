"""Runs the WGSL that TVM emits natively, through wgpu-native on the Vulkan drivers of this machine."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tvm import tirx

SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
"""The driver inside Debian's Chromium, which Vulkan does not find by itself."""
NATIVE_FEATURES = {"shader-f16": "shader-f16", "subgroups": "subgroup"}
"""Names of WebGPU's features in wgpu-native."""


def adapters() -> dict[str, WebGPUDevice]:
    """The adapters of this machine by name; empty without PyPI `wgpu` or without a driver."""
    if importlib.util.find_spec("wgpu") is None:
        return {}
    before = os.environ.get("VK_ADD_DRIVER_FILES")
    os.environ["VK_ADD_DRIVER_FILES"] = str(SWIFTSHADER)
    try:
        import wgpu.backends.wgpu_native.extras

        wgpu.backends.wgpu_native.extras.set_instance_extras(backends=("Primary",))  # no OpenGL
        found = [WebGPUDevice(adapter) for adapter in wgpu.gpu.enumerate_adapters_sync()]
    finally:
        # Browsers that other tests start see the drivers that they would see without us.
        del os.environ["VK_ADD_DRIVER_FILES"]
        if before is not None:
            os.environ["VK_ADD_DRIVER_FILES"] = before
    return {device.name: device for device in found}


class WebGPUDevice:
    """An adapter and, once used, its device."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter
        self.name = adapter.info["device"].split()[0].lower()
        self.features = {ours for ours, native in NATIVE_FEATURES.items() if native in adapter.features}
        self._pipelines: dict[str, Any] = {}

    @cached_property
    def _device(self) -> Any:
        # Without wishes for limits it has those that every WebGPU device has.
        return self._adapter.request_device_sync(required_features=[NATIVE_FEATURES[name] for name in self.features])

    def run(self, function: Any, wgsl: str, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Calls a kernel once: its arguments afterwards. `wgsl` is what TVM made of `function`."""
        wgsl = wgsl.replace("enable subgroups;", "")  # naga knows them without
        named = {param.name.split(".")[0]: array for param, array in zip(function.params, arrays, strict=True)}
        bindings = re.findall(r"@binding\(\d+\) var<storage, (\w+)> (\w+)_ptr", wgsl)  # 0, 1, 2 ...
        buffers = {name: self._upload(named[name], "STORAGE") for _, name in bindings}
        grid = launch_grid(function, arrays)
        uniform = self._upload(uniforms(function, wgsl, arrays, grid[0]), "UNIFORM")

        pipeline = self._pipeline(wgsl, [access for access, _ in bindings])
        resources = [*buffers.values(), uniform]
        group = self._device.create_bind_group(
            layout=pipeline.get_bind_group_layout(0),
            entries=[{"binding": i, "resource": {"buffer": buffer}} for i, buffer in enumerate(resources)],
        )
        encoder = self._device.create_command_encoder()
        compute_pass = encoder.begin_compute_pass()
        compute_pass.set_pipeline(pipeline)
        compute_pass.set_bind_group(0, group)
        compute_pass.dispatch_workgroups(*grid)
        compute_pass.end()
        self._device.queue.submit([encoder.finish()])
        written = {name for access, name in bindings if access == "read_write"}
        return [self._download(buffers[name], array) if name in written else array for name, array in named.items()]

    def _pipeline(self, wgsl: str, accesses: Sequence[str]) -> Any:
        if wgsl not in self._pipelines:
            kinds = [{"read": "read-only-storage", "read_write": "storage"}[access] for access in accesses]
            layout = self._device.create_bind_group_layout(
                entries=[
                    {"binding": i, "visibility": "COMPUTE", "buffer": {"type": kind}}
                    for i, kind in enumerate([*kinds, "uniform"])
                ]
            )
            self._pipelines[wgsl] = self._device.create_compute_pipeline(
                layout=self._device.create_pipeline_layout(bind_group_layouts=[layout]),
                compute={"module": self._device.create_shader_module(code=wgsl)},
            )
        return self._pipelines[wgsl]

    def _upload(self, array: np.ndarray, usage: str) -> Any:
        import wgpu

        data = array.tobytes()
        flags = wgpu.BufferUsage[usage] | wgpu.BufferUsage.COPY_SRC
        return self._device.create_buffer_with_data(data=data + bytes(-len(data) % 4), usage=flags)

    def _download(self, buffer: Any, like: np.ndarray) -> np.ndarray:
        data = self._device.queue.read_buffer(buffer)[: like.nbytes]
        return np.frombuffer(data, like.dtype).reshape(like.shape)


def launch_grid(function: Any, arrays: Sequence[np.ndarray]) -> tuple[int, int, int]:
    """Workgroups along x, y and z: the extents of the outermost loops, for arguments of these shapes."""
    shapes = (tirx.decl_buffer(array.shape, str(array.dtype)) for array in arrays)
    extents, body = {}, function.specialize(dict(zip(function.params, shapes, strict=True))).body
    # Views of arguments may come first.
    loop = body.seq[-1] if isinstance(body, tirx.SeqStmt) else body
    while isinstance(loop, tirx.For) and loop.thread_binding is not None:
        extents[loop.thread_binding.thread_tag] = int(loop.extent)
        loop = loop.body
    assert "threadIdx.x" in extents
    return extents.get("blockIdx.x", 1), extents.get("blockIdx.y", 1), extents.get("blockIdx.z", 1)


def uniforms(function: Any, wgsl: str, arrays: Sequence[np.ndarray], grid_x: int) -> np.ndarray:
    """What the kernel reads beside its buffers: sizes that only the call knows, by name, and the grid."""
    values = {"packGridDimX": grid_x - 1}
    for param, array in zip(function.params, arrays, strict=True):
        shape = zip(param.ty.shape, array.shape, strict=True)
        values |= {axis.name: size for axis, size in shape if isinstance(axis, tirx.Var)}
    (fields,) = re.findall(r"struct PODArgs \{(.*?)\}", wgsl, re.DOTALL)
    return np.array([values[name] for name in re.findall(r"(\w+): [iu]32", fields)], np.uint32)
