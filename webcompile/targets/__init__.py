"""Facts about what we compile for, one file per target: `targets/webgpu.py` is the target "webgpu"."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class TargetSpec:
    """A target: what runs its host code, and its variants, best first."""

    name: str
    host: str
    library: str
    """Name of the library file, with `{variant}`."""
    variants: tuple[VariantSpec, ...]


def get_target(name: str) -> TargetSpec:
    """The target of that name. Raises WebcompileError("target_unsupported") naming the known ones."""
    if name not in TARGETS:
        raise WebcompileError("target_unsupported", f"got target {name!r}, expected one of {', '.join(TARGETS)}")
    spec = importlib.import_module(f"webcompile.targets.{name}").target()
    assert isinstance(spec, TargetSpec)
    return spec
