"""Qwen 2 and 2.5: Llama with biases of queries, keys and values, and windows in the upper layers."""

from __future__ import annotations

from typing import Any

from webcompile.models import Architecture
from webcompile.models.common.published import Published, pre_norm


def build(config: dict[str, Any]) -> Architecture:
    """Maps a Qwen2Config."""
    published = Published(config, rms_norm_eps=1e-6, max_position_embeddings=32768, max_window_layers=28)
    norm, slides = published.rms_norm(), published.get("use_sliding_window", False)
    types = published.layer_types(lambda i: slides and i >= published["max_window_layers"])
    layers = [
        pre_norm(
            published.attention(window=published.window(kind) if slides else None, qkv_bias=True, out_bias=False),
            published.mlp(),
            norm,
        )
        for kind in types
    ]
    return Architecture(published.decoder(layers, norm))
