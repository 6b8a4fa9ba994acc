"""A model on the Hugging Face hub or a mirror of it: `HF://org/name[@revision]`.

`huggingface_hub` downloads, retries and caches; HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean what they mean
there.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from webcompile.errors import WebcompileError
from webcompile.hub import folder
from webcompile.hub.model import GENERATION_CONFIG_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, ModelSource
from webcompile.progress import Progress, Stage
from webcompile.weights.safetensors import INDEX_NAME, SINGLE_NAME, read_weight_map

PREFIX = "hf://"
_SMALL_FILES = [
    folder.CONFIG_FILE,
    TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    folder.CHAT_TEMPLATE_FILE,
    INDEX_NAME,
]


def load(model: str, progress: Progress) -> ModelSource:
    """The model, downloaded as far as it is not in the cache.

    Raises WebcompileError: model_not_found for names, revisions and files that the hub does not have, download_failed
    when the hub cannot be reached, storage_full, and what `folder.load` raises.
    """
    repo, _, revision = model[len(PREFIX) :].partition("@")
    try:
        snapshot = _download(repo, revision or "main", progress)
    except WebcompileError:
        raise
    except Exception as error:  # the client lets errors of its HTTP library through, which differs between its versions
        raise _explain(error, model) from error
    return folder.load(snapshot, name=repo.rpartition("/")[2])


def _download(repo: str, revision: str, progress: Progress) -> Path:
    """Fetches the small files, then exactly the weight files that they call for; the snapshot's folder in the cache."""
    from huggingface_hub import hf_hub_download, snapshot_download

    with progress.stage("look up") as stage:
        snapshot = Path(snapshot_download(repo, revision=revision, allow_patterns=_SMALL_FILES, tqdm_class=_bar_class(None)))
        stage.advance(sum((snapshot / name).stat().st_size for name in _SMALL_FILES if (snapshot / name).is_file()))
    index = snapshot / INDEX_NAME
    weight_files = sorted(set(read_weight_map(index).values())) if index.is_file() else [SINGLE_NAME]
    with progress.stage("download") as stage:
        for name in weight_files:
            hf_hub_download(repo, name, revision=snapshot.name, tqdm_class=_bar_class(stage))
    return snapshot


def _bar_class(stage: Stage | None) -> Any:
    """A progress bar class for `huggingface_hub` that shows nothing and counts into `stage`."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})
            if stage is not None:
                stage.total += kwargs.get("total") or 0
                stage.advance(kwargs.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            if stage is not None:
                stage.advance(int(n or 0))

    return Bar


def _explain(error: Exception, model: str) -> WebcompileError:
    """What the client raised, in our terms."""
    from huggingface_hub import errors

    cause = str(error).strip().split("\n")[0][:300]
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WebcompileError("storage_full", f"{model}: no room for the download", "free some space or set HF_HOME")
    if isinstance(error, errors.GatedRepoError):
        return WebcompileError(
            "model_not_found", f"{model}: access is restricted", "accept its terms on the hub and set HF_TOKEN"
        )
    if isinstance(error, errors.HFValidationError):
        return WebcompileError("model_not_found", f"{model}: {cause}", "expected HF://org/name or HF://org/name@revision")
    if isinstance(error, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)):
        return WebcompileError(
            "model_not_found",
            f"{model}: the hub has no such model or revision",
            "check the name; private models need HF_TOKEN",
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return WebcompileError(
            "model_not_found",
            f"{model}: the hub has the model, but not in safetensors format",
            f"{SINGLE_NAME} is missing there",
        )
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return WebcompileError(
            "download_failed",
            f"{model}: not in the cache, and the hub cannot be reached: {cause}",
            "check the network, HF_ENDPOINT and HF_HUB_OFFLINE; files that arrived whole are kept for the next try",
        )
    return WebcompileError(
        "download_failed",
        f"{model}: {type(error).__name__}: {cause}",
        "check the network and HF_ENDPOINT; files that arrived whole are kept for the next try",
    )
