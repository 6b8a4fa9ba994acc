"""Marks a module whose functions are to be found in a system library, as a side module's are."""

from __future__ import annotations

from typing import Any

import tvm


def name_system_library(prefix: str) -> Any:
    """The pass that gives the module its prefix after all have their symbols: kernels bear it in their names already."""

    @tvm.transform.module_pass(opt_level=0, name="NameSystemLibrary")  # type: ignore[untyped-decorator]
    def mark(module: tvm.IRModule, _: Any) -> tvm.IRModule:
        return module.with_attr("system_lib_prefix", prefix)

    return mark
