"""Ministral 8B: Mistral with windows in some layers."""

from __future__ import annotations

from typing import Any

from webcompile.models import Architecture
from webcompile.models.common.published import Published, pre_norm


def build(config: dict[str, Any]) -> Architecture:
    """Maps a MinistralConfig."""
    published = Published(config, rms_norm_eps=1e-6, num_key_value_heads=8)
    norm, mlp = published.rms_norm(), published.mlp()
    layers = [
        pre_norm(published.attention(window=published.window(kind), qkv_bias=False, out_bias=False), mlp, norm)
        for kind in published.layer_types(lambda _: published.window() is not None)
    ]
    return Architecture(published.decoder(layers, norm))
