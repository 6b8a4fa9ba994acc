"""MiniCPM 1 and 2: Llama with multipliers that follow from depth and width."""

from __future__ import annotations

from typing import Any

from webcompile.models import Architecture
from webcompile.models.common.published import Published, pre_norm


def build(config: dict[str, Any]) -> Architecture:
    """Maps a MiniCPMConfig."""
    published = Published(config, rms_norm_eps=1e-6)
    published.expect("num_experts", 0)
    norm = published.rms_norm()
    scale = published["scale_depth"] / published.num_layers**0.5
    layer = pre_norm(published.attention(), published.mlp(), norm, residual_scale=scale)
    decoder = published.decoder(
        layer,
        norm,
        embedding_scale=published["scale_emb"],
        logit_scale=published["dim_model_base"] / published["hidden_size"],
    )
    return Architecture(decoder)
