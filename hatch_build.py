"""Build hook of the package: puts a current runtime.wasm into the package, so that users need no emscripten."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class RuntimeHook(BuildHookInterface):  # type: ignore[misc]
    """Runs before files are collected for the wheel or the source archive."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds runtime.wasm unless a current one is there. An editable install builds it when it is first needed."""
        packaged = Path(self.root) / "webcompile" / "assets" / "runtime.wasm"
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        try:
            from webcompile.assets import install_runtime

            install_runtime()
        except ImportError as error:  # an isolated build environment, without TVM: it takes what is there
            if not packaged.exists():
                raise RuntimeError("run `python -m webcompile.assets` before building the package") from error
