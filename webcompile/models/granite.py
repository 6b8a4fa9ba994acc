"""Granite 3: Llama with multipliers."""

from __future__ import annotations

from typing import Any

from webcompile.models import Architecture
from webcompile.models.common.published import Published, pre_norm


def build(config: dict[str, Any]) -> Architecture:
    """Maps a GraniteConfig."""
    published = Published(config, rms_norm_eps=1e-6, attention_multiplier=1.0)
    norm, attention = published.rms_norm(), published.attention(scale=published["attention_multiplier"])
    layer = pre_norm(attention, published.mlp(), norm, residual_scale=published.get("residual_multiplier", 1.0))
    decoder = published.decoder(
        layer,
        norm,
        embedding_scale=published.get("embedding_multiplier", 1.0),
        logit_scale=1 / published.get("logits_scaling", 1.0),
    )
    return Architecture(decoder)
