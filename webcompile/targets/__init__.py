"""Facts about what we compile for, one file per target: `targets/webgpu.py` is the target "webgpu"."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import Any

import tvm

from webcompile.contracts import TARGETS
from webcompile.errors import WebcompileError
from webcompile.kernels.builder import Schedule


@dataclass(frozen=True)
class VariantSpec:
    """One compiled form: what it needs of the device and how its kernels are made."""

    name: str
    dtype: str
    """Dtype of activations: "float32" or "float16"."""
    features: tuple[str, ...]
    tvm_target: Any
    """TVM's description of the device and its host."""
    schedule: Schedule
    adapters: str = "any"
    """"any", "hardware" or "software": see manifest.Variant."""
    architectures: tuple[str, ...] = ()
    """For CUDA: what the kernels are compiled for ahead of time."""


@dataclass(frozen=True)
class TargetSpec:
    """A target: what runs its host code, and its variants, best first."""

    name: str
    host: str
    library: str
    """Name of the library file, with `{variant}`."""
    variants: tuple[VariantSpec, ...]


def get_target(name: str, host: str | None = None) -> TargetSpec:
    """The target of that name, or its objects for a program on another `host` (see hosts.get_host).

    Raises WebcompileError("target_unsupported") naming the known ones.
    """
    if name not in TARGETS:
        raise WebcompileError("target_unsupported", f"got target {name!r}, expected one of {', '.join(TARGETS)}")
    spec = importlib.import_module(f"webcompile.targets.{name}").target()
    assert isinstance(spec, TargetSpec)
    return spec if host is None else _for_host(spec, host)


def _for_host(spec: TargetSpec, name: str) -> TargetSpec:
    """The same kernels with other code around them."""
    from webcompile.targets.cpu import FAST_MATH
    from webcompile.targets.hosts import get_host

    host = get_host(name)

    def rehost(target: Any) -> Any:
        return host.tvm_target(**FAST_MATH) if spec.name == "cpu" else tvm.target.Target(target, host=host.tvm_target())

    if spec.name == "webgpu":
        raise WebcompileError(
            "target_unsupported", "got target webgpu with a host", "It runs in every browser as it is: leave --host out."
        )
    return replace(
        spec,
        host=host.name,
        library=f"model.{spec.name}.{{variant}}.{host.name}.o",
        variants=tuple(replace(variant, tvm_target=rehost(variant.tvm_target)) for variant in spec.variants),
    )
