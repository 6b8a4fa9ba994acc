"""Runs both sides in one headless Chromium, in turns, and reads their figures."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.bench.stock.library import StockLibrary, stock_library
from webcompile import assets
from webcompile.browser.launch import launch, page_adapter
from webcompile.browser.server import blank_files, harness_files, runtime_web_folder, serve
from webcompile.engine.artifact import Artifact
from webcompile.errors import WebcompileError
from webcompile.serve.site_files import SiteFile

SHORT_PROMPT_TOKENS = 16
"""Length of the prompt of the first answer."""
COUNTED_PROMPT_TOKENS = 8
"""Length of the prompts of answers whose commands are counted: our engine never cuts so short a prompt into chunks."""

_PAGES = Path(__file__).resolve().parent / "page"
_ROOT = Path(__file__).resolve().parent.parent.parent
_READY_MS = 30_000


@dataclass(frozen=True)
class Plan:
    """What each page is asked. All prompts begin differently, so that no cache shortens one."""

    opening: Sequence[int]
    short: Sequence[int]
    again: Sequence[int]
    long: Mapping[int, Sequence[int]]
    """Prompts by length."""
    decode_tokens: int


@dataclass(frozen=True)
class Run:
    """One side, once."""

    figures: dict[str, float]
    answers: list[list[int]]
    info: dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """All runs; index i of both sides ran next to each other."""

    ours: list[Run]
    stock: list[Run]
    adapter: dict[str, Any]
    browser: str


def measure(artifact: Artifact, adapter: str, plan: Plan, repeat: int) -> Measured:
    """Compiles the stock side, opens the browser and measures ours, stock, ours, stock, …"""
    config = artifact.read_json("mlc-chat-config.json")["model_config"]
    quantization = artifact.manifest.model.quantization
    found = _adapter(adapter, quantization)
    library = stock_library(config, quantization)
    files = {**harness_files(artifact), **_page_files(library)}
    runs: dict[str, list[Run]] = {"ours": [], "stock": []}
    with serve(files) as url, launch(adapter) as browser:
        context = browser.new_context()
        for side in runs:
            _log(f"{side}: filling the browser's storage")
            with _Page(context, f"{url}{side}.html") as page:
                page.call("fill")
        for repetition in range(repeat):
            for side, done in runs.items():
                _log(f"{side}: run {repetition + 1} of {repeat}")
                run = measure_page(context, f"{url}{side}.html", plan)
                run.figures["download_gzip_bytes"] = _download_nbytes(side, artifact, library, run.info)
                done.append(run)
        version = f"{browser.browser_type.name} {browser.version}"
    return Measured(runs["ours"], runs["stock"], found, version)


def measure_page(context: Any, url: str, plan: Plan) -> Run:
    """Opens a page and takes all figures of one side; see `figures.metrics` for their names."""
    with _Page(context, f"{url}?prompt={','.join(map(str, plan.opening))}") as page:
        opened = page.call("opened")
        figures = {"first_token_s": float(opened["firstTokenSeconds"])}
        answers = [opened["tokenIds"]]

        def ask(prompt_ids: Sequence[int], tokens: int) -> tuple[dict[str, Any], dict[str, int]]:
            before = page.call("counts")
            answer = page.call("generate", {"promptIds": list(prompt_ids), "maxTokens": tokens})
            after = page.call("counts")
            answers.append(answer["tokenIds"])
            return answer, {name: after[name] - before[name] for name in after}

        steps = plan.decode_tokens
        for length, prompt_ids in plan.long.items():
            answer, _ = ask(prompt_ids, 1 + steps)
            figures[f"prefill_tps_{length}"] = length / (answer["firstAt"] - answer["started"]) * 1000
            figures[f"decode_tps_{length}"] = steps / (answer["lastAt"] - answer["firstAt"]) * 1000
        # Two requests that differ in the number of decode steps only: their difference is what further steps ask for. They
        # come last, when everything has been seen and recorded; the long one first.
        answer, whole = ask(plan.again[:COUNTED_PROMPT_TOKENS], 2 + steps)
        _, brief = ask(plan.short[:COUNTED_PROMPT_TOKENS], 2)
        figures["host_ms_per_token"] = answer["hostMsPerToken"]
        for name in ("dispatches", "passes", "submits", "bytesWritten", "bytesRead", "buffers", "bindGroups"):
            # The two may differ by an object that one of them found in a pool.
            figures[f"{name}_per_token"] = max(0, whole[name] - brief[name]) / steps
        figures["pipelines"] = page.call("counts")["pipelines"]
    return Run(figures, answers, {"variant": opened["variant"], "adapter": opened["adapter"]})


class _Page:
    """A page of ours; its errors become WebcompileErrors with what its console said."""

    def __init__(self, context: Any, url: str) -> None:
        self.page = context.new_page()
        self._console: list[str] = []
        self.page.on("console", lambda message: self._console.append(message.text))
        self.page.on("pageerror", lambda error: self._console.append(str(error)))
        self.page.goto(url)
        try:
            self.page.wait_for_function("window.benchCall !== undefined", timeout=_READY_MS)
        except Exception as error:
            raise self._failure("the page did not start", str(error)) from error

    def __enter__(self) -> _Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()

    def call(self, name: str, request: Mapping[str, Any] | None = None) -> Any:
        result = self.page.evaluate("([name, request]) => benchCall(name, request)", [name, request or {}])
        if "error" in result:
            raise self._failure(f"{name} failed", result["error"])
        return result.get("value")

    def _failure(self, what: str, why: str) -> WebcompileError:
        said = "\n  ".join(self._console[-20:])
        return WebcompileError("internal", f"{self.page.url}: {what}: {why}", f"The page's console:\n  {said}")


def _adapter(adapter: str, quantization: str) -> dict[str, Any]:
    """The browser's adapter, if it can run the stock model, which computes in the dtype of its weights."""
    with serve(blank_files()) as url, launch(adapter) as browser, browser.new_page() as page:
        page.goto(url)
        found = page_adapter(page)
    if found is None:
        raise WebcompileError("webgpu_unavailable", f"the browser has no {adapter} WebGPU adapter", "webcompile doctor")
    if quantization == "q4f16_1" and "shader-f16" not in found["features"]:
        hint = "Compile for it: python -m webcompile demo --quantization q4f32_1 -o DIR"
        raise WebcompileError("webgpu_unavailable", f"{found['name']} has no shader-f16, which {quantization} needs", hint)
    return found


def _page_files(library: StockLibrary) -> dict[str, SiteFile]:
    files = {path.name: path for path in _PAGES.iterdir()}
    files |= {
        "stock/tvmjs.js": _minified_tvmjs(),
        "stock/model.wasm": library.wasm,
        "stock/model.json": library.wasm.with_name("model.json"),
    }
    return {name: SiteFile(path, hashlib.sha256(path.read_bytes()).hexdigest()) for name, path in files.items()}


def _minified_tvmjs() -> Path:
    """TVM's JavaScript runtime as npm ships it, minified as ours is, from the cache or into it."""
    source = _ROOT / "node_modules" / "@mlc-ai" / "web-runtime" / "lib" / "index.js"
    esbuild = _ROOT / "node_modules" / ".bin" / "esbuild"
    if not source.exists() or not esbuild.exists():
        raise WebcompileError("tool_missing", f"{source.parent.parent.name} or esbuild is not installed", "npm ci")
    minified = assets.cache_folder() / f"stock-tvmjs-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}.js"
    if not minified.exists():
        minified.parent.mkdir(parents=True, exist_ok=True)
        command = [str(esbuild), str(source), "--minify", "--log-level=error", f"--outfile={minified}"]
        subprocess.run(command, check=True)
    return minified


def _download_nbytes(side: str, artifact: Artifact, library: StockLibrary, info: Mapping[str, Any]) -> int:
    """Bytes of JavaScript and wasm that a first visit downloads, compressed by gzip."""
    if side == "stock":
        files = [_minified_tvmjs(), library.wasm]
    else:
        files = [*runtime_web_folder().glob("*.js"), assets.runtime_wasm()]
        files += [artifact.path(v.file) for v in artifact.manifest.variants if v.name == info["variant"]]
    return sum(len(gzip.compress(path.read_bytes(), 9)) for path in files)


def _log(text: str) -> None:
    print(f"[bench] {text}", file=sys.stderr, flush=True)
