"""Mistral 7B and everything published in its layout: Llama with a sliding window."""

from __future__ import annotations

from typing import Any

from webcompile.models import Architecture
from webcompile.models.common.published import Published, pre_norm


def build(config: dict[str, Any]) -> Architecture:
    """Maps a MistralConfig."""
    published = Published(config, rms_norm_eps=1e-6, num_key_value_heads=8, max_position_embeddings=131072)
    norm, attention = published.rms_norm(), published.attention(window=published.window(), qkv_bias=False, out_bias=False)
    return Architecture(published.decoder(pre_norm(attention, published.mlp(up_bias=False, down_bias=False), norm), norm))
