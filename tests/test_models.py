"""Architectures on tiny random configs with uneven sizes, on the CPU, against transformers in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import tvm
from transformers import LlamaConfig, LlamaForCausalLM
from tvm import relax

from tests.reference import Reference, dequantize
from webcompile.build.library import PAGE_TOKENS
from webcompile.errors import WebcompileError
from webcompile.models import Architecture, architecture, model_types
from webcompile.nn.context import Context
from webcompile.nn.decoder import CausalLM
from webcompile.pipeline import pipeline
from webcompile.quantize.scheme import get_scheme
from webcompile.targets import get_target
from webcompile.weights.reader import TensorInfo

TINY = {
    "vocab_size": 259,
    "hidden_size": 60,
    "intermediate_size": 100,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 512,
    "rope_theta": 1e5,
    "tie_word_embeddings": False,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


class InMemory:
    """A WeightReader over arrays."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self.tensors = tensors
        self.infos = {name: TensorInfo(tensor.shape, tensor.dtype.name) for name, tensor in tensors.items()}

    def read(self, name: str) -> np.ndarray:
        return self.tensors[name]

    def close(self) -> None: ...


def published(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Random weights under Hugging Face names."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**config)).float()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tensors = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        del tensors["lm_head.weight"]
    return tensors


def packed(built: Architecture, tensors: dict[str, np.ndarray], quantization: str) -> dict[str, np.ndarray]:
    """What the shards of an artifact would hold."""
    scheme, arrays = get_scheme(quantization), {}
    for name, source in built.weights.items():
        whole = np.concatenate([tensors[tensor] for tensor in source.tensors])
        if whole.ndim == 1:
            arrays[name] = whole.astype(scheme.compute_dtype)
        else:
            arrays |= {p.name: a for p, a in zip(scheme.weight_params(name, whole.shape), scheme.pack(whole), strict=True)}
    return arrays


class Compiled:
    """A tiny model compiled for the CPU; `run` is one call of its functions."""

    def __init__(self, built: Architecture, arrays: dict[str, np.ndarray], quantization: str) -> None:
        variant = get_target("cpu").variants[0]
        model = CausalLM(Context(get_scheme(quantization), variant.dtype, variant.schedule, PAGE_TOKENS), built.config)
        module, params = model.export_tvm(spec=model.specification())
        with tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
            executable = relax.build(module, variant.tvm_target, relax_pipeline=pipeline({"s": 64}))
        self._vm = relax.VirtualMachine(executable, tvm.cpu())
        self._params = [tvm.runtime.tensor(arrays[name].astype(param.dtype)) for name, param in params]
        config = built.config
        # Unwritten slots hold NaN: reading one shows.
        empty = np.full((8, 2, config.num_kv_heads, PAGE_TOKENS, config.head_dim), np.nan, np.float32)
        self._cache = [tvm.runtime.tensor(empty) for _ in range(config.num_layers)]
        self._page_table = tvm.runtime.tensor(np.array([3, 1, 0, 2, 7, 6, 5, 4], np.int32))

    def run(self, function: str, token_ids: list[int], position: int) -> np.ndarray:
        """Logits float32[vocab] after the last token."""
        ids = tvm.runtime.tensor(np.array(token_ids, np.int32))
        where = tvm.runtime.tensor(np.array([position], np.int32))
        return self._vm[function](ids, where, self._page_table, self._cache, self._params).numpy()[0]


@pytest.mark.parametrize(
    ("changes", "quantization"),
    [
        ({}, "q0f32"),
        ({}, "q4f32_1"),
        ({}, "q4f16_1"),
        ({}, "q0f16"),
        ({"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}, "q0f32"),
        ({"rope_parameters": LLAMA3_ROPE}, "q0f32"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}, "q0f32"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5, "hidden_size": 50, "intermediate_size": 33}, "q4f32_1"),
    ],
)
def test_prefill_chunks_and_decode_equal_transformers(changes: dict[str, Any], quantization: str) -> None:
    config = {**TINY, **changes}
    if "rope_parameters" in config:
        del config["rope_theta"]
    built = architecture({"model_type": "llama", **config})
    arrays = packed(built, published(config), quantization)
    reference = Reference(config, dequantize(InMemory(arrays), built, quantization, config))
    compiled = Compiled(built, arrays, quantization)
    token_ids = np.random.default_rng(0).integers(0, config["vocab_size"], 53).tolist()
    expected = reference.logits(token_ids)
    tolerance = 1e-4 * np.abs(expected).max()
    assert np.abs(compiled.run("prefill", token_ids[:20], 0) - expected[19]).max() < tolerance
    assert np.abs(compiled.run("prefill", token_ids[20:37], 20) - expected[36]).max() < tolerance
    for i in range(37, 53):
        assert np.abs(compiled.run("decode", token_ids[i : i + 1], i) - expected[i]).max() < tolerance
    # Rolling back is nothing but running again at an earlier position.
    assert np.abs(compiled.run("prefill", token_ids[30:40], 30) - expected[39]).max() < tolerance


def test_unknown_architecture_names_the_known_ones() -> None:
    with pytest.raises(WebcompileError, match="llama") as raised:
        architecture({"model_type": "perceiver"})
    assert raised.value.code == "architecture_unsupported"
    assert model_types() == ("llama",)


def test_incomplete_config_names_the_key() -> None:
    with pytest.raises(WebcompileError, match="hidden_size") as raised:
        architecture({"model_type": "llama", "num_attention_heads": 2})
    assert raised.value.code == "model_invalid"


def test_unknown_rope_scaling_is_refused() -> None:
    with pytest.raises(WebcompileError, match="mystery") as raised:
        architecture({"model_type": "llama", **TINY, "rope_parameters": {"rope_type": "mystery", "rope_theta": 1e4}})
    assert raised.value.code == "model_invalid"
