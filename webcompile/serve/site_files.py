"""The chat page and its artifacts as one closed table of URL paths: what is not in the table is not served.

`static.py` serves the table and `export.py` writes it to a folder, so both give a browser the same site.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from webcompile import config, contracts
from webcompile.errors import WebcompileError
from webcompile.manifest import Manifest

MODELS_FILE = "models.json"
PAGE_FILES = ("index.html", "app.js", "style.css", "icon.svg", "worker.js")
RUNTIME_FILE = "runtime.wasm"

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".jinja": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
"""By suffix, not by the machine's MIME table: that one lacks wasm on some systems, and browsers insist on it."""

COMPRESSIBLE = frozenset({".html", ".js", ".css", ".svg", ".json", ".wasm", ".jinja", ".txt"})
"""Weights are packed integers and floats: compression costs time and gains nothing."""


@dataclass(frozen=True)
class Artifact:
    """A checked artifact folder."""

    folder: Path
    manifest: Manifest
    manifest_sha256: str


@dataclass(frozen=True)
class ModelEntry:
    """One entry of `models.json`: what the page's model chooser shows. `url` is relative to the page, ending in `/`."""

    id: str
    name: str
    url: str
    nbytes: int
    quantization: str


@dataclass(frozen=True)
class SiteFile:
    """A file of the site. `sha256` is the recorded hash: for weights nobody reads gigabytes just to serve them."""

    path: Path
    sha256: str

    @property
    def media_type(self) -> str:
        """The Content-Type."""
        return MEDIA_TYPES.get(self.path.suffix, "application/octet-stream")


@dataclass(frozen=True)
class Site:
    """Everything that a browser may ask for: `files` by URL path without the leading slash, and the model list."""

    files: dict[str, SiteFile]
    models: tuple[ModelEntry, ...]

    def models_json(self) -> bytes:
        """The content of `models.json`."""
        return json.dumps(config.to_json(self.models), indent=1).encode()


def read_artifact(folder: Path) -> Artifact:
    """Reads and checks a manifest; every file it names must be there, inside the folder and of the recorded size."""
    path = folder / contracts.MANIFEST_FILE
    if not folder.is_dir():
        raise WebcompileError(
            "model_not_found",
            f"no artifact folder at {folder}",
            "Make one with `python -m webcompile compile MODEL -o FOLDER`.",
        )
    if not path.is_file():
        raise WebcompileError(
            "artifact_invalid", f"{folder} has no {contracts.MANIFEST_FILE}", "Give the folder that `compile` wrote."
        )
    raw = path.read_bytes()
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise WebcompileError("artifact_invalid", f"{path} is not JSON: {error}", "Compile the model again.") from error
    manifest = config.from_json(Manifest, data, where=str(path))
    if manifest.format != contracts.ARTIFACT_FORMAT:
        raise WebcompileError(
            "artifact_invalid", f"{path}: format is {manifest.format!r}, expected {contracts.ARTIFACT_FORMAT!r}"
        )
    if manifest.abi_version != contracts.ABI_VERSION:
        raise WebcompileError(
            "abi_mismatch",
            f"{path}: the artifact has ABI version {manifest.abi_version}, this release runs {contracts.ABI_VERSION}",
            "Compile the model again with this release.",
        )
    for entry in manifest.files:
        nbytes = _inside(folder, entry.path).stat().st_size
        if nbytes != entry.nbytes:
            raise WebcompileError(
                "artifact_invalid",
                f"{folder / entry.path} has {nbytes} bytes, the manifest says {entry.nbytes}",
                "The folder was not copied completely, or was changed. Copy it again or compile the model again.",
            )
    return Artifact(folder, manifest, hashlib.sha256(raw).hexdigest())


def _inside(folder: Path, relative: str) -> Path:
    """The file's real path, which must lie in the folder: a manifest may come from a stranger."""
    parts = PurePosixPath(relative).parts
    real = (folder / relative).resolve()
    if ".." in parts or not real.is_relative_to(folder.resolve()):
        raise WebcompileError("artifact_invalid", f"{folder}: the manifest names {relative!r}, which is outside the folder")
    if not real.is_file():
        raise WebcompileError(
            "artifact_invalid",
            f"{folder}: file {relative!r} of the manifest is missing",
            "Copy or compile the folder again.",
        )
    return real


def collect_site(artifacts: Sequence[Path], page: Path, runtime_wasm: Path) -> Site:
    """The table for the built page in `page` with the given artifacts."""
    files = {name: _hashed(page / name) for name in PAGE_FILES}
    files[RUNTIME_FILE] = _hashed(runtime_wasm)
    models: list[ModelEntry] = []
    for folder in artifacts:
        artifact = read_artifact(folder)
        model = artifact.manifest.model
        name = _unused_name(f"{model.name}-{model.quantization}", {entry.id for entry in models})
        url = f"models/{name}/"
        models.append(ModelEntry(name, model.name, url, _download_nbytes(artifact.manifest), model.quantization))
        files[url + contracts.MANIFEST_FILE] = SiteFile(folder / contracts.MANIFEST_FILE, artifact.manifest_sha256)
        native = {variant.file for variant in artifact.manifest.variants if variant.target != "webgpu"}
        for entry in artifact.manifest.files:
            if entry.path not in native:
                files[url + entry.path] = SiteFile(_inside(folder, entry.path), entry.sha256)
    return Site(files, tuple(models))


def _hashed(path: Path) -> SiteFile:
    return SiteFile(path, hashlib.sha256(path.read_bytes()).hexdigest())


def _unused_name(text: str, used: set[str]) -> str:
    """A name for URLs, made from free text."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "model"
    name, number = base, 2
    while name in used:
        name, number = f"{base}-{number}", number + 1
    return name


def _download_nbytes(manifest: Manifest) -> int:
    """What a browser downloads at most: all but the libraries of other targets."""
    native = {variant.file for variant in manifest.variants if variant.target != "webgpu"}
    return sum(entry.nbytes for entry in manifest.files if entry.path not in native)
