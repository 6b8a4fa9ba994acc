"""The chat page and its artifacts over HTTP, as a starlette application.

Cache policy: every response may be stored and must be revalidated (`no-cache` with an ETag by content hash). Names do
not carry hashes, and a model compiled again into the same folder keeps its URLs, so `immutable` would serve stale
weights; a 304 costs nothing beside them, and the runtime keeps its own verified copy anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webcompile import assets
from webcompile.serve import compression
from webcompile.serve.site_files import MODELS_FILE, PAGE_FILES, Site, SiteFile, collect_site

SECURITY_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
"""On every response. The first two make the page cross-origin isolated, which threads in wasm need."""


def site_folder() -> Path:
    """The built page: packaged with the wheel, or built in the checkout."""
    return assets.web_build("site", PAGE_FILES)


def site_app(artifacts: Sequence[Path], *, page: Path | None = None, runtime_wasm: Path | None = None) -> Starlette:
    """The application: the page at `/`, the models at `/models/<name>/`, the list of them at `/models.json`.

    `page` and `runtime_wasm` are found by themselves when not given. Raises WebcompileError for an unusable artifact.
    """
    return files_app(collect_site(artifacts, page or site_folder(), runtime_wasm or assets.runtime_wasm()))


def files_app(site: Site) -> Starlette:
    """The application that serves a table of files."""
    served = {name: _Served(file) for name, file in site.files.items()}
    served[""] = served["index.html"]
    models_json = site.models_json()

    async def models(_: Request) -> Response:
        return Response(models_json, media_type="application/json", headers={"Cache-Control": "no-cache"})

    async def file(request: Request) -> Response:
        found = served.get(request.path_params["path"])
        if found is None:
            raise HTTPException(404)
        return found.response(request)

    app = Starlette(routes=[Route(f"/{MODELS_FILE}", models), Route("/{path:path}", file)])
    app.add_middleware(_ExtraHeaders)
    return app


class _Served:
    """A file with its compressed forms. Not StaticFiles: a closed table leaves no path to escape through."""

    def __init__(self, file: SiteFile) -> None:
        self._file = file
        self._stamp = self._current_stamp()
        self._compressed: dict[str, Path] = {}
        if compression.is_compressible(file):
            self._compressed = compression.neighbours(file.path)
            self._compressed.setdefault("gzip", compression.cached_gzip(file))

    def response(self, request: Request) -> Response:
        """The file, a part of it, or 304."""
        headers = {"Cache-Control": "no-cache"}
        path, coding = self._file.path, ""
        unchanged = self._current_stamp() == self._stamp
        if self._compressed:
            headers["Vary"] = "Accept-Encoding"
        if unchanged:  # else FileResponse makes a tag of its own from the time of the change
            # A range counts bytes of the plain file: a download goes on, however the first answer was coded.
            coding = "" if "range" in request.headers else self._accepted(request.headers)
            headers["ETag"] = f'"{self._file.sha256}{"-" + coding if coding else ""}"'
        if coding:
            path = self._compressed[coding]
            headers["Content-Encoding"] = coding
        response = FileResponse(path, headers=headers, media_type=self._file.media_type, stat_result=path.stat())
        if _matches(request.headers.get("if-none-match"), response.headers["etag"]):
            kept = ("etag", "cache-control", "vary", "last-modified")
            return Response(status_code=304, headers={k: v for k, v in response.headers.items() if k in kept})
        return response

    def _accepted(self, headers: Headers) -> str:
        """The best content coding that the client accepts and that exists; empty for the plain file."""
        accepted = set()
        for item in headers.get("accept-encoding", "").split(","):
            coding, _, quality = item.replace(" ", "").partition(";q=")
            if quality not in ("0", "0.0", "0.00", "0.000"):
                accepted.add(coding.lower())
        return next((coding for coding in compression.SUFFIXES if coding in accepted and coding in self._compressed), "")

    def _current_stamp(self) -> tuple[int, int]:
        stat = self._file.path.stat()
        return stat.st_mtime_ns, stat.st_size


def _matches(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]


class _ExtraHeaders:
    """Adds SECURITY_HEADERS to every response, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, send_with_headers)
