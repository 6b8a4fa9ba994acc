"""HF:// names against a local server that speaks the hub's protocol, each in a process of its own, as users have it."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "some-org/tiny-model"

SCRIPT = """
import json, sys
from webcompile.errors import WebcompileError
from webcompile.hub.source import resolve
from webcompile.progress import Progress
try:
    source = resolve(sys.argv[1], Progress())
    sums = {name: float(source.weights.read(name).astype("float64").sum()) for name in source.weights.infos}
    print(json.dumps({"name": source.name, "config": source.config, "template": source.chat_template,
                      "files": sorted(source.tokenizer_files), "sums": sums}))
except WebcompileError as error:
    print(json.dumps(error.to_dict()))
"""


class Hub(ThreadingHTTPServer):
    """Serves `files` as repository REPO at revisions main and COMMIT; notes requests; can cut off bodies."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.cuts: list[int] = []
        """Bytes after which the coming downloads of large files break off."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def downloads(self) -> list[str]:
        return [path.rpartition("/")[2] for method, path, _ in self.requests if method == "GET" and "/resolve/" in path]


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.respond(with_body=False)

    def do_GET(self) -> None:
        self.respond(with_body=True)

    def respond(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append((self.command, path, self.headers.get("Range") or ""))
        name = path.removeprefix(f"/{REPO}/resolve/").partition("/")[2]
        api = f"/api/models/{REPO}"
        if not path.startswith((f"/{REPO}/", f"{api}/")):
            self.reply(401, {"X-Error-Code": "RepoNotFound"})
        elif path.startswith(f"{api}/revision/"):
            known = path.rpartition("/")[2] in ("main", COMMIT)
            siblings = [{"rfilename": file} for file in self.server.files]
            body = json.dumps({"id": REPO, "sha": COMMIT, "siblings": siblings}).encode()
            self.reply(200, {}, body) if known else self.reply(404, {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith(f"{api}/tree/"):
            files = [
                {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for file, data in self.server.files.items()
            ]
            self.reply(200, {}, json.dumps(files).encode())
        elif name not in self.server.files:
            self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self.reply_file(self.server.files[name], with_body=with_body)

    def reply_file(self, data: bytes, *, with_body: bool) -> None:
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        body = data[begin:]
        if not with_body:
            self.reply(200, headers, body, nbytes_sent=0)
        elif self.server.cuts and len(data) > 10_000:
            self.reply(206 if begin else 200, headers, body, nbytes_sent=self.server.cuts.pop(0))
            self.close_connection = True
        else:
            self.reply(206 if begin else 200, headers, body)

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"", nbytes_sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:nbytes_sent])


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    weights = {"w": np.arange(100_000, dtype=np.float32)}
    server.files = {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"}).encode(),
        "generation_config.json": b"{}",
        "model.safetensors": safetensors.numpy.save(weights),
        "pytorch_model.bin": b"never fetched",
        "onnx/model.onnx": b"never fetched",
        "README.md": b"never fetched",
    }
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def run(hub: Hub, home: Path, model: str = f"HF://{REPO}", **environment: str) -> tuple[dict[str, Any], str]:
    """What `resolve` gives in a fresh process, and what it shows."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    root = str(Path(__file__).parent.parent)
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, model],
        env={**inherited, **settings, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout), done.stderr


def test_fetches_what_is_needed_and_nothing_else_then_works_offline(hub: Hub, tmp_path: Path) -> None:
    expected = {
        "name": "tiny-model",
        "config": {"model_type": "llama"},
        "template": "{{ messages }}",
        "files": ["generation_config.json", "tokenizer.json", "tokenizer_config.json"],
        "sums": {"w": float(np.arange(100_000).sum())},
    }
    result, shown = run(hub, tmp_path)
    assert result == expected
    assert sorted(hub.downloads()) == sorted(name for name in hub.files if hub.files[name] != b"never fetched")
    assert "download: 400.1 kB in" in shown

    hub.requests.clear()
    result, _ = run(hub, tmp_path)
    assert result == expected and hub.downloads() == []

    hub.requests.clear()
    result, _ = run(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert result == expected and hub.requests == []


def test_a_revision_and_shards(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    for i in (1, 2):
        hub.files[f"model-{i}.safetensors"] = safetensors.numpy.save({f"w{i}": np.full(3, i, np.float32)})
    hub.files["consolidated.safetensors"] = b"never fetched"
    weight_map = {"w1": "model-1.safetensors", "w2": "model-2.safetensors"}
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    result, _ = run(hub, tmp_path, f"HF://{REPO}@{COMMIT}")
    assert result["sums"] == {"w1": 3.0, "w2": 6.0}
    assert "consolidated.safetensors" not in hub.downloads()


def test_a_connection_that_breaks_is_resumed_where_it_was(hub: Hub, tmp_path: Path) -> None:
    weights = np.ones(6_000_000, np.float32)  # more than two of the client's chunks of 10 MiB
    hub.files["model.safetensors"] = safetensors.numpy.save({"w": weights})
    hub.cuts = [15_000_000]
    result, shown = run(hub, tmp_path)
    assert result["sums"] == {"w": 6_000_000.0}
    ranges = [range_ for method, path, range_ in hub.requests if method == "GET" and path.endswith("model.safetensors")]
    assert ranges == ["", f"bytes={10 << 20}-"]
    assert "download: 24.0 MB in" in shown


def test_a_name_the_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    error, _ = run(hub, tmp_path, "HF://some-org/other")
    assert error["code"] == "model_not_found" and "HF://some-org/other: the hub has no such model" in error["message"]


def test_a_revision_the_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    error, _ = run(hub, tmp_path, f"HF://{REPO}@v9")
    assert error["code"] == "model_not_found" and "no such model or revision" in error["message"]


def test_a_model_in_the_format_of_torch(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    content = io.BytesIO()
    torch.save({"w": torch.arange(100)}, content)
    hub.files["pytorch_model.bin"] = content.getvalue()
    result, _ = run(hub, tmp_path)
    assert result["sums"] == {"w": 4950.0}


def test_a_model_without_weights(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"], hub.files["pytorch_model.bin"]
    error, _ = run(hub, tmp_path)
    assert error["code"] == "model_not_found" and "no weights in a format" in error["message"]


def test_a_name_that_is_no_name(hub: Hub, tmp_path: Path) -> None:
    error, _ = run(hub, tmp_path, "HF://one/two/three")
    assert error["code"] == "model_not_found" and "HF://org/name" in error["hint"]
    assert hub.requests == []


def test_no_network_and_nothing_in_the_cache(hub: Hub, tmp_path: Path) -> None:
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        error, _ = run(hub, tmp_path, **environment)
        assert error["code"] == "download_failed" and "HF_HUB_OFFLINE" in error["hint"]
