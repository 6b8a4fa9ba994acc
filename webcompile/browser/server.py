"""The harness page, the web runtime and an artifact on a local port."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from webcompile import assets
from webcompile.contracts import MANIFEST_FILE
from webcompile.engine.artifact import Artifact
from webcompile.serve.site_files import Site, SiteFile
from webcompile.serve.static import files_app

_PACKAGE = Path(__file__).resolve().parent.parent
_BUNDLES = ("index.js", "worker.js")


def runtime_web_folder() -> Path:
    """The built package `runtime-web`: shipped with the wheel, or built in the checkout. Else tool_missing."""
    return assets.web_build("runtime-web", _BUNDLES)


@contextmanager
def serve(files: dict[str, SiteFile]) -> Iterator[str]:
    """Serves a table of files on a free port of this machine; gives the base URL, ending in `/`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = files_app(Site(files, ()))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(10)


def blank_files() -> dict[str, SiteFile]:
    """An empty page: WebGPU exists only on a page from a server."""
    return {"index.html": _file(_PACKAGE / "browser" / "blank.html")}


def harness_files(artifact: Artifact) -> dict[str, SiteFile]:
    """The harness with the web runtime at `webcompile/` and the artifact at `artifact/`."""
    page = _PACKAGE / "browser"
    files = {"index.html": _file(page / "harness.html"), "harness.js": _file(page / "harness.js")}
    for path in runtime_web_folder().glob("*.js"):
        files[f"webcompile/{path.name}"] = _file(path)
    files["webcompile/runtime.wasm"] = _file(assets.runtime_wasm())
    files[f"artifact/{MANIFEST_FILE}"] = _file(artifact.folder / MANIFEST_FILE)
    for entry in artifact.manifest.files:
        files[f"artifact/{entry.path}"] = SiteFile(artifact.folder / entry.path, entry.sha256)
    return files


def _file(path: Path) -> SiteFile:
    return SiteFile(path, hashlib.sha256(path.read_bytes()).hexdigest())
