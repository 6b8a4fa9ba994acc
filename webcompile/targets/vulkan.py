"""Vulkan: the WGSL of the browser, on this machine through wgpu-native (`webcompile.backends`), host code for its CPU."""

from __future__ import annotations

from webcompile.targets import TargetSpec
from webcompile.targets.hosts import this_machine
from webcompile.targets.webgpu import wgsl_variants


def target() -> TargetSpec:
    """See TargetSpec."""
    host = this_machine()
    return TargetSpec("vulkan", host.name, "model.vulkan.{variant}.so", wgsl_variants(host.tvm_target()))
