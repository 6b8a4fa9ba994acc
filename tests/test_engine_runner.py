"""ModelRunner on a compiled library of a few lines: the same model as `engine_artifact.next_token`, in TIR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op, spec
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from tests.engine_artifact import EOS, PAGE_TOKENS, VOCAB, next_token, reference, write_artifact
from webcompile.engine import Engine, SamplingParams
from webcompile.errors import WebcompileError
from webcompile.manifest import FileEntry, ParamEntry
from webcompile.pipeline import pipeline
from webcompile.weights.shards import ShardWriter

CACHE = ("num_pages", 2, 1, PAGE_TOKENS, 2)


def append_and_score(name: str, tokens: Any) -> Any:
    """Appends token ids to two caches; logits[v] = scale[v] where v is the next token, else 0.

    Sums even positions from one cache and odd ones from the other, so that both must be right.
    """
    pages, max_pages = tirx.Var("num_pages", "int64"), tirx.Var("max_pages", "int64")
    with IRBuilder() as ir_builder, T.prim_func():
        T.func_name(name)
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        token_ids = T.arg("token_ids", T.buffer((tokens,), "int32"))
        position = T.arg("position", T.buffer((1,), "int32"))
        page_table = T.arg("page_table", T.buffer((max_pages,), "int32"))
        scale = T.arg("scale", T.buffer((VOCAB,), "float32"))
        caches = [T.arg(f"cache{i}", T.buffer((pages, *CACHE[1:]), "float32")) for i in range(2)]
        logits = T.arg("logits", T.buffer((1, VOCAB), "float32"))

        def slot(index: Any) -> tuple[Any, ...]:
            return (page_table[tirx.floordiv(index, PAGE_TOKENS)], 1, 0, tirx.floormod(index, PAGE_TOKENS), 1)

        with T.serial(tokens) as i:
            for cache in caches:
                T.buffer_store(cache, token_ids[i].astype("float32"), slot(position[0] + i))
        total = T.alloc_buffer((1,), "int32", scope="local")
        T.buffer_store(total, 0, (0,))
        with T.serial(position[0] + tokens) as t:
            seen = [cache[slot(t)].astype("int32") for cache in caches]
            token = tirx.Select(tirx.floormod(t, 2) == 0, *seen)
            T.buffer_store(total, total[0] + (t + 1).astype("int32") * token, (0,))
        with T.serial(VOCAB) as v:
            chosen = v == tirx.floormod(total[0], VOCAB - 1)
            T.buffer_store(logits, tirx.Select(chosen, scale[v], tirx.const(0, "float32")), (0, v))
    return ir_builder.get()


class Tiny(nn.Module):  # type: ignore[misc]
    """The functions of contracts.MODEL_FUNCTIONS."""

    def __init__(self) -> None:
        self.scale = nn.Parameter((VOCAB,), "float32")

    def prefill(self, token_ids: Tensor, position: Tensor, page_table: Tensor, kv_cache: list[Tensor]) -> Tensor:
        one = isinstance(token_ids.shape[0], int)
        name = "score_one" if one else "score"
        kernel = append_and_score(name, 1 if one else tirx.Var("s", "int64"))
        out = [*kv_cache, Tensor.placeholder([1, VOCAB], "float32")]
        arguments = [token_ids, position, page_table, self.scale, *kv_cache]
        return op.tensor_ir_inplace_op(kernel, name, arguments, [4, 5, -1], out)[2]

    decode = prefill


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    def function(tokens: int | str) -> dict[str, Any]:
        return {
            "token_ids": spec.Tensor([tokens], "int32"),
            "position": spec.Tensor([1], "int32"),
            "page_table": spec.Tensor(["max_pages"], "int32"),
            "kv_cache": [spec.Tensor(list(CACHE), "float32")] * 2,
            "$": {"param_mode": "packed", "effect_mode": "none"},
        }

    module, _ = Tiny().export_tvm(spec={"prefill": function("s"), "decode": function(1)})
    path = tmp_path_factory.mktemp("library") / "model.so"
    executable = relax.build(module, tvm.target.Target("llvm"), relax_pipeline=pipeline({"s": 8}))
    executable.export_library(str(path))
    return path.read_bytes()


def write(folder: Path, library: bytes, scale: np.ndarray[Any, Any], declared: str = "float32") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder) as writer:
        writer.add("scale", scale)
        entries: list[FileEntry] = list(writer.finish(VOCAB))
    files = {entry.path: (folder / entry.path).read_bytes() for entry in entries}
    return write_artifact(folder, {**files, "model.so": library}, params=(ParamEntry("scale", (VOCAB,), declared),))


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_a_compiled_model_answers_through_pages_and_widened_weights(tmp_path: Path, library: bytes, stored: str) -> None:
    scale = np.ones(VOCAB, ml_dtypes.bfloat16 if stored == "bfloat16" else stored)
    greedy = SamplingParams(max_tokens=9, temperature=0)
    with Engine(write(tmp_path, library, scale), cache_tokens=256) as engine:
        prompts = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [3, 1, 4, 1, 5, 8], [200] * 17]
        generations = [engine.generate(prompt, greedy) for prompt in prompts]
        for prompt, generation in zip(prompts, generations, strict=True):
            assert list(generation.wait().token_ids) == reference(prompt, 9)
        # Shares a page and copies the next one in part.
        again = engine.answer([3, 1, 4, 1, 5, 9, 7], greedy)
        assert list(again.token_ids) == reference([3, 1, 4, 1, 5, 9, 7], 9)
        assert again.usage.cached_prompt_tokens == 6
        logits = engine.forward(prompts[0])
        assert logits.dtype == np.float32
        assert logits.shape == (VOCAB,)
        assert logits.argmax() == next_token(prompts[0])
        assert engine.device().kind == "cpu"
        assert EOS not in again.token_ids


def test_a_parameter_of_another_shape_is_named(tmp_path: Path, library: bytes) -> None:
    with pytest.raises(WebcompileError, match=r"scale: expected shape \(257,\), got \(3,\)") as caught:
        Engine(write(tmp_path, library, np.ones(3, np.float32)))
    assert caught.value.code == "tensor_mismatch"


def test_nothing_is_narrowed(tmp_path: Path, library: bytes) -> None:
    with pytest.raises(WebcompileError, match="scale: expected float16, got float32"):
        Engine(write(tmp_path, library, np.ones(VOCAB, np.float32), declared="float16"))


def test_a_damaged_shard_is_named(tmp_path: Path, library: bytes) -> None:
    folder = write(tmp_path, library, np.ones(VOCAB, np.float32))
    shard = folder / "params_shard_0.bin"
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(WebcompileError, match=r"params_shard_0\.bin") as caught:
        Engine(folder)
    assert caught.value.code == "artifact_corrupt"
