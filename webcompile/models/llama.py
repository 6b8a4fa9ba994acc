"""Llama: 1, 2, 3, 3.x, and everything published in its layout (SmolLM2, TinyLlama, Vicuna, ...)."""

from __future__ import annotations

from typing import Any

from webcompile.models import Architecture, WeightSource
from webcompile.nn.decoder import DecoderConfig
from webcompile.nn.rope import inverse_frequencies


def build(config: dict[str, Any]) -> Architecture:
    """Maps a Hugging Face LlamaConfig. Keys that may be absent default as in transformers."""
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    # transformers 5 writes `rope_parameters`, earlier ones `rope_theta` and `rope_scaling`.
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
    decoder = DecoderConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        norm_epsilon=config.get("rms_norm_eps", 1e-6),
        inverse_frequencies=inverse_frequencies(head_dim, theta, rope),
        max_context_tokens=config.get("max_position_embeddings", 2048),
        tied_embeddings=config.get("tie_word_embeddings", False),
        attention_bias=config.get("attention_bias", False),
        mlp_bias=config.get("mlp_bias", False),
    )
    return Architecture(decoder, _weights(decoder))


def _weights(config: DecoderConfig) -> dict[str, WeightSource]:
    sources = {
        "model.embed_tokens": WeightSource(("model.embed_tokens.weight",)),
        "model.norm.weight": WeightSource(("model.norm.weight",)),
    }
    if not config.tied_embeddings:
        sources["lm_head"] = WeightSource(("lm_head.weight",))
    for i in range(config.num_layers):
        layer = f"model.layers.{i}"
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        qkv = tuple(f"{attention}.{x}_proj" for x in "qkv")
        gate_up = (f"{mlp}.gate_proj", f"{mlp}.up_proj")
        linear = {
            f"{attention}.qkv_proj": (qkv, config.attention_bias),
            f"{attention}.o_proj": ((f"{attention}.o_proj",), config.attention_bias),
            f"{mlp}.gate_up_proj": (gate_up, config.mlp_bias),
            f"{mlp}.down_proj": ((f"{mlp}.down_proj",), config.mlp_bias),
        }
        for name, (parts, bias) in linear.items():
            sources[name] = WeightSource(tuple(f"{part}.weight" for part in parts))
            if bias:
                sources[f"{name}.bias"] = WeightSource(tuple(f"{part}.bias" for part in parts))
        for norm in ("input_layernorm", "post_attention_layernorm"):
            sources[f"{layer}.{norm}.weight"] = WeightSource((f"{layer}.{norm}.weight",))
    return sources
