"""OLMo 1: layer norms without parameters, clipped queries, keys and values."""

from __future__ import annotations

from typing import Any

from webcompile.kernels.norm import Normalization
from webcompile.models import Architecture
from webcompile.models.common.published import Published, pre_norm


def build(config: dict[str, Any]) -> Architecture:
    """Maps an OlmoConfig."""
    published = Published(config)
    norm = Normalization(1e-5, "layer", weight=False)
    layer = pre_norm(published.attention(clip=published.get("clip_qkv", 0.0)), published.mlp(), norm)
    return Architecture(published.decoder(layer, norm))
