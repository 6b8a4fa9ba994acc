"""Where a model comes from: the forms of name that users may give."""

from __future__ import annotations

import re
from pathlib import Path

from webcompile.errors import WebcompileError
from webcompile.hub import demo, folder, gguf, huggingface
from webcompile.hub.model import ModelSource
from webcompile.progress import Progress

__all__ = ["ModelSource", "resolve"]

_FORMS = "'demo', a folder with config.json and weights, a .gguf file, or HF://org/name[@revision]"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def resolve(model: str, progress: Progress) -> ModelSource:
    """The model that `model` names; downloads it if it is on a hub.

    Raises WebcompileError: model_not_found, model_invalid, weights_invalid, architecture_unsupported, download_failed.
    """
    if model == demo.NAME:
        return demo.load()
    if model.lower().startswith(huggingface.PREFIX):
        return huggingface.load(model, progress)
    path = Path(model).expanduser()
    if path.is_dir():
        return folder.load(path)
    if path.is_file() and path.suffix == gguf.SUFFIX:
        return gguf.load(path)
    raise WebcompileError(
        "model_not_found",
        f"got {model!r}, {'a file of another kind' if path.exists() else 'which does not exist here'}; expected {_FORMS}",
        f"did you mean HF://{model} ?" if _HUB_NAME.fullmatch(model) and not path.exists() else "",
    )
