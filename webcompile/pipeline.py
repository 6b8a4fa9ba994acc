"""The ordered table of compiler passes, from the exported module to what code generation takes.

Models call scheduled kernels directly (dequantization, epilogues and cache appends are inside them), so the table is
short: plan memory, then lower to the virtual machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tvm
from tvm import relax, tirx

from webcompile.contracts import SYSTEM_LIB_PREFIX
from webcompile.passes.bounds import attach_bounds
from webcompile.passes.system_library import name_system_library

Phase = tuple[str, tuple[Any, ...]]


def phases(bounds: dict[str, int], *, is_system_library: bool) -> tuple[Phase, ...]:
    """(name, passes) in order. `bounds` are the largest values of symbolic sizes. System libraries are found by prefix."""
    transform = relax.transform
    last = (name_system_library(SYSTEM_LIB_PREFIX),) if is_system_library else ()
    return (
        ("graph", (attach_bounds(bounds), transform.DeadCodeElimination(), transform.LegalizeOps())),
        ("kernels", (tirx.transform.ForceNarrowIndexToInt32(),)),
        (
            "memory",
            (
                transform.ToNonDataflow(),
                transform.RemovePurityChecking(),
                transform.CallTIRRewrite(),
                transform.StaticPlanBlockMemory(),
            ),
        ),
        (
            "virtual-machine",
            (
                transform.LowerAllocTensor(),
                transform.KillAfterLastUse(),
                transform.LowerRuntimeBuiltin(),
                transform.ComputePrimValue(),
                transform.VMShapeLower(),
                transform.AttachGlobalSymbol(),
                *last,
            ),
        ),
    )


def pipeline(bounds: dict[str, int], dump: Path | None = None, *, is_system_library: bool = False) -> Any:
    """One pass that runs the table. With `dump`, the module after each phase is written there as TVMScript."""

    @tvm.transform.module_pass(opt_level=0, name="Webcompile")  # type: ignore[untyped-decorator]
    def run(module: tvm.IRModule, _: Any) -> tvm.IRModule:
        for number, (name, passes) in enumerate(phases(bounds, is_system_library=is_system_library)):
            module = tvm.transform.Sequential(list(passes))(module)
            if dump is not None:
                dump.mkdir(parents=True, exist_ok=True)
                (dump / f"{number}-{name}.py").write_text(module.script(show_meta=True))
        return module

    return run
