"""Orion 14B: Llama with layer norms."""

from __future__ import annotations

from typing import Any

from webcompile.models import Architecture
from webcompile.models.common.published import Published, pre_norm


def build(config: dict[str, Any]) -> Architecture:
    """Maps an OrionConfig."""
    published = Published(config, rms_norm_eps=1e-5)
    norm = published.layer_norm("rms_norm_eps")
    return Architecture(published.decoder(pre_norm(published.attention(), published.mlp(), norm), norm))
