"""Qwen 3, dense: Llama with norms of queries and keys, and windows in the upper layers."""

from __future__ import annotations

from typing import Any

from webcompile.kernels.rotate import HeadNorm
from webcompile.models import Architecture
from webcompile.models.common.published import Published, pre_norm


def build(config: dict[str, Any]) -> Architecture:
    """Maps a Qwen3Config."""
    published = Published(config, rms_norm_eps=1e-6, head_dim=128, max_position_embeddings=32768, max_window_layers=28)
    norm, slides = published.rms_norm(), published.get("use_sliding_window", False)
    types = published.layer_types(lambda i: slides and i >= published["max_window_layers"])
    layers = [
        pre_norm(
            published.attention(window=published.window(kind) if slides else None, head_norm=HeadNorm(norm)),
            published.mlp(),
            norm,
        )
        for kind in types
    ]
    return Architecture(published.decoder(layers, norm))
