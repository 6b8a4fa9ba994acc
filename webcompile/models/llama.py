"""Llama: 1, 2, 3, 3.x, and everything published in its layout (SmolLM2, TinyLlama, Vicuna, ...)."""

from __future__ import annotations

from typing import Any

from webcompile.models import Architecture
from webcompile.models.common.published import Published, pre_norm


def build(config: dict[str, Any]) -> Architecture:
    """Maps a LlamaConfig."""
    published = Published(config, rms_norm_eps=1e-6, max_position_embeddings=2048)
    norm = published.rms_norm()
    return Architecture(published.decoder(pre_norm(published.attention(), published.mlp(), norm), norm))
