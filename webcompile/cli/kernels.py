"""Where the device's time goes: the web engine's profiles as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def table(title: str, profile: Mapping[str, Any]) -> str:
    """`profile` (the web engine's `Profile`, without its timeline): a line for each kernel, longest total time first."""
    kernels = profile["kernels"]
    width = max([len("kernel"), *(len(kernel["name"]) for kernel in kernels)])
    total = f"{profile['dispatches']} dispatches, {profile['totalMs']:.1f} ms on the device"
    head = f"{'kernel':<{width}} {'dispatches':>10} {'total ms':>10} {'share':>6} {'mean ms':>9} {'longest ms':>10}  of grid"
    lines = [f"{title}: {total}", head]
    for kernel in kernels:
        grid = " x ".join(map(str, kernel["longest"]["grid"]))
        lines.append(
            f"{kernel['name']:<{width}} {kernel['dispatches']:>10} {kernel['totalMs']:>10.1f} {kernel['share']:>6.1%} "
            f"{kernel['meanMs']:>9.3f} {kernel['maxMs']:>10.2f}  {grid}"
        )
    return "\n".join(lines)
