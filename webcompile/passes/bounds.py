"""Tells the memory planner how large symbolic sizes can get, so that every intermediate is allocated once."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax


def attach_bounds(bounds: dict[str, int]) -> Any:
    """The pass that declares an upper bound for each named symbolic size, in every Relax function."""

    @tvm.transform.module_pass(opt_level=0, name="AttachBounds")  # type: ignore[untyped-decorator]
    def rewrite(module: tvm.IRModule, _: Any) -> tvm.IRModule:
        for variable, function in list(module.functions_items()):
            if isinstance(function, relax.Function):
                module[variable] = function.with_attr("tir_var_upper_bound", dict(bounds))
        return module

    return rewrite
