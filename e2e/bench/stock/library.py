"""Compiles the stock model with TVM's default pipeline and links it with TVM's web runtime into one wasm file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import relax

from e2e.bench.stock import runtime
from e2e.bench.stock.model import PREFILL_CHUNK_TOKENS, Llama
from webcompile import assets
from webcompile.errors import WebcompileError

_LINK_FLAGS = (
    *("-O3", "--no-entry", "-sWASM_BIGINT=1", "-sSTANDALONE_WASM=1", "-sALLOW_MEMORY_GROWTH=1", "-sTOTAL_MEMORY=160MB"),
    # What JavaScript provides is undefined on purpose.
    *("-sERROR_ON_UNDEFINED_SYMBOLS=0", "-sWARN_ON_UNDEFINED_SYMBOLS=0"),
)
_DTYPES = {"q4f16_1": "float16", "q4f32_1": "float32"}


@dataclass(frozen=True)
class StockLibrary:
    """The linked wasm file, and what the page needs to call it."""

    wasm: Path
    description: dict[str, Any]
    """JSON: dtype, hidden_size, vocab_size, prefill_chunk_tokens, and the names of the parameters in order."""


def stock_library(config: dict[str, Any], quantization: str) -> StockLibrary:
    """From the cache, or built into it. `config` is `model_config` of the artifact's mlc-chat-config.json.

    Raises architecture_unsupported for what the stock model is not written for.
    """
    dtype = _DTYPES.get(quantization)
    if dtype is None or config["model_type"] != "llama" or config["attention_bias"] or config["mlp_bias"]:
        raise WebcompileError(
            "quantization_unsupported",
            f"got {config['model_type']} in {quantization}; the stock model is a plain Llama in {' or '.join(_DTYPES)}",
            "Compile such an artifact: python -m webcompile demo --quantization q4f32_1 -o DIR",
        )
    digest = hashlib.sha256(json.dumps([config, quantization, runtime.toolchain(), _LINK_FLAGS]).encode())
    for source in ("model.py", "library.py"):
        digest.update(Path(__file__).with_name(source).read_bytes())
    folder = assets.cache_folder() / f"stock-model-{digest.hexdigest()[:16]}"
    wasm, description = folder / "model.wasm", folder / "model.json"
    if not description.exists():
        runtime.objects()
        folder.mkdir(parents=True, exist_ok=True)
        names = _compile(config, dtype, wasm)
        sizes = {name: config[name] for name in ("hidden_size", "vocab_size")}
        facts = {"dtype": dtype, **sizes, "prefill_chunk_tokens": PREFILL_CHUNK_TOKENS, "params": names}
        partial = folder / "model.partial.json"
        partial.write_text(json.dumps(facts))
        partial.replace(description)  # last: it says that the folder is complete
    return StockLibrary(wasm, json.loads(description.read_text()))


def _compile(config: dict[str, Any], dtype: str, output: Path) -> list[str]:
    """Writes the wasm file; the names of its parameters."""
    print(f"[stock] compiling the model for {dtype}", file=sys.stderr, flush=True)
    host = {"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm", "vector-width": 128}
    target = tvm.target.Target("webgpu", host=host)
    with target:
        module, names = Llama(config, dtype, target).export()
    with tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
        executable = relax.build(module, target, relax_pipeline=_pipeline(target))
    with tempfile.TemporaryDirectory(prefix="stock-model-") as name:
        linked = Path(name) / "model.wasm"
        executable.export_library(str(linked), fcompile=_link, workspace_dir=name)
        shutil.move(os.fspath(linked), output)
    return names


def _pipeline(target: Any) -> Any:
    """TVM's default pipeline for WebGPU, and what spares the result needless work.

    Bounds let its planner allocate once; reshapes that became views leave no kernels behind.
    """
    default = relax.backend.gpu_generic

    @tvm.transform.module_pass(opt_level=0, name="BoundSizes")  # type: ignore[untyped-decorator]
    def bound(module: tvm.IRModule, _: Any) -> tvm.IRModule:
        for variable, function in list(module.functions_items()):
            if isinstance(function, relax.Function):
                module[variable] = function.with_attr("tir_var_upper_bound", {"seq_len": PREFILL_CHUNK_TOKENS})
        return module

    @tvm.transform.module_pass(opt_level=0, name="Stock")  # type: ignore[untyped-decorator]
    def run(module: tvm.IRModule, _: Any) -> tvm.IRModule:
        passes = [bound, *default.library_dispatch_passes(target)]
        passes += [*default.legalize_passes(target), *default.dataflow_lower_passes(target)]
        passes += [relax.transform.DeadCodeElimination(), *default.finalize_passes(target)]
        with target:
            return tvm.transform.Sequential(passes)(module)

    return run


def _link(output: str, objects: list[str] | str, *_: Any, **__: Any) -> None:
    """`fcompile` of `export_library`. Minutes: emscripten optimizes the whole."""
    print("[stock] linking", file=sys.stderr, flush=True)
    compiled = [objects] if isinstance(objects, str) else objects
    runtime.run_emcc([*_LINK_FLAGS, *map(str, runtime.objects()), *map(str, compiled), "-o", str(output)])


_link.object_format = "o"  # type: ignore[attr-defined]
