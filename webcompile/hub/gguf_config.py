"""Hugging Face's `config.json` from a GGUF file's metadata."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from webcompile.errors import WebcompileError
from webcompile.hub.gguf_metadata import Metadata, shortest
from webcompile.weights.gguf import GGUFWeights
from webcompile.weights.gguf_file import GGUFFile

_ROPE_FREQS = "rope_freqs.weight"
_LLAMA3_LOW, _LLAMA3_HIGH, _LLAMA3_CONTEXT = 1.0, 4.0, 8192
"""`low_freq_factor`, `high_freq_factor` and `original_max_position_embeddings` of every Llama 3.1 to 3.3."""


def hf_config(metadata: Metadata, weights: GGUFWeights, file: GGUFFile) -> dict[str, Any]:
    """The config of a llama model (`weights` has refused all others), in the terms of transformers' LlamaConfig."""
    hidden_size = metadata.integer("llama.embedding_length")
    num_heads = metadata.integer("llama.attention.head_count")
    head_dim = metadata.integer("llama.rope.dimension_count", hidden_size // max(1, num_heads))
    num_experts = metadata.integer("llama.expert_count", 0)
    if num_experts:
        raise WebcompileError(
            "architecture_unsupported", f"{metadata.where}: a mixture of {num_experts} experts is not supported"
        )
    rope_theta = metadata.number("llama.rope.freq_base", 10000.0)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden_size,
        "intermediate_size": metadata.integer("llama.feed_forward_length"),
        "num_hidden_layers": metadata.integer("llama.block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": metadata.integer("llama.attention.head_count_kv", num_heads),
        "head_dim": metadata.integer("llama.attention.key_length", head_dim),
        "max_position_embeddings": metadata.integer("llama.context_length"),
        "rms_norm_eps": metadata.number("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": rope_theta,
        "rope_scaling": _rope_scaling(metadata, file, head_dim, rope_theta),
        "vocab_size": _vocab_size(metadata, weights),
        "tie_word_embeddings": "lm_head.weight" not in weights.infos,
        "attention_bias": "model.layers.0.self_attn.q_proj.bias" in weights.infos,
        "mlp_bias": "model.layers.0.mlp.gate_proj.bias" in weights.infos,
    }
    for name in ("bos", "eos"):
        if f"tokenizer.ggml.{name}_token_id" in metadata:
            config[f"{name}_token_id"] = metadata.integer(f"tokenizer.ggml.{name}_token_id")
    if "tokenizer.ggml.eot_token_id" in metadata and "eos_token_id" in config:
        end_of_turn = metadata.integer("tokenizer.ggml.eot_token_id")
        if end_of_turn != config["eos_token_id"]:
            config["eos_token_id"] = [config["eos_token_id"], end_of_turn]
    return config


def _vocab_size(metadata: Metadata, weights: GGUFWeights) -> int:
    """Rows of the embedding, which may be padded beyond the tokenizer's tokens."""
    embedding = weights.infos.get("model.embed_tokens.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise WebcompileError("tensor_mismatch", f"{metadata.where}: expected a matrix token_embd.weight")
    num_tokens = len(metadata.items("tokenizer.ggml.tokens", str))
    if num_tokens > embedding.shape[0]:
        raise WebcompileError(
            "model_invalid",
            f"{metadata.where}: got {num_tokens} tokens, but only {embedding.shape[0]} rows of token_embd.weight",
        )
    return embedding.shape[0]


def _rope_scaling(metadata: Metadata, file: GGUFFile, head_dim: int, rope_theta: float) -> dict[str, Any] | None:
    if _ROPE_FREQS in file.tensors:
        return _llama3_scaling(metadata, file.read(_ROPE_FREQS).astype(np.float32), head_dim, rope_theta)
    kind = metadata.string("llama.rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise metadata.error("llama.rope.scaling.type", "none, linear or yarn", kind)
    scaling: dict[str, Any] = {"rope_type": kind, "factor": metadata.number("llama.rope.scaling.factor")}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = metadata.integer("llama.rope.scaling.original_context_length")
    return scaling


def _llama3_scaling(metadata: Metadata, divisors: Any, head_dim: int, rope_theta: float) -> dict[str, Any]:
    """Llama 3.1 scaling, of which GGUF keeps only the divisor of each frequency: checks the published parameters."""
    factor = shortest(float(divisors.max(initial=1.0)))
    wavelengths = 2 * math.pi * rope_theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((_LLAMA3_CONTEXT / wavelengths - _LLAMA3_LOW) / (_LLAMA3_HIGH - _LLAMA3_LOW), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if divisors.shape != expected.shape or not np.allclose(divisors, expected, rtol=1e-3):
        raise WebcompileError(
            "model_invalid",
            f"{metadata.where}: {_ROPE_FREQS} is not the rope scaling of Llama 3.1 with factor {factor}",
            "use the safetensors version of the model, which says how its frequencies are scaled",
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": _LLAMA3_LOW,
        "high_freq_factor": _LLAMA3_HIGH,
        "original_max_position_embeddings": _LLAMA3_CONTEXT,
    }
