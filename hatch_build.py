"""Build hook of the package: puts runtime.wasm, the web runtime and the chat page into it, so that users need no
emscripten and no Node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WEB_BUILDS = {"site/dist": "webcompile/assets/site", "runtime-web/dist": "webcompile/assets/runtime-web"}
"""What npm builds, and where it lies in the package."""


class AssetsHook(BuildHookInterface):  # type: ignore[misc]
    """Runs before files are collected for the wheel or the source archive."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds runtime.wasm unless a current one is there. A checkout finds all three where they are built."""
        if version == "editable":
            return
        root = Path(self.root)
        for source, packaged in WEB_BUILDS.items():
            # A wheel made from the source archive finds them in place.
            if not (root / packaged).is_dir():
                if not (root / source).is_dir():
                    raise RuntimeError(f"{source} is not built: run `npm ci && npm run build` before building the package")
                for path in (root / source).iterdir():
                    if path.suffix in {".js", ".html", ".css", ".svg"}:
                        build_data["force_include"][str(path)] = f"{packaged}/{path.name}"
        packaged_runtime = root / "webcompile" / "assets" / "runtime.wasm"
        sys.path.insert(0, str(root))
        try:
            from webcompile.assets import install_runtime

            install_runtime()
        except ImportError as error:  # an isolated build environment, without TVM: it takes what is there
            if not packaged_runtime.exists():
                raise RuntimeError("run `python -m webcompile.assets` before building the package") from error
