"""SmolLM3: Llama of which every fourth layer does not rotate."""

from __future__ import annotations

from typing import Any

from webcompile.models import Architecture
from webcompile.models.common.published import Published, pre_norm


def build(config: dict[str, Any]) -> Architecture:
    """Maps a SmolLM3Config."""
    published = Published(config, rms_norm_eps=1e-6, rope_theta=2e6, no_rope_layer_interval=4, tie_word_embeddings=True)
    interval, count = published["no_rope_layer_interval"], published.num_layers
    rotates = published.get("no_rope_layers") or [(i + 1) % interval != 0 for i in range(count)]
    norm, rope, mlp = published.rms_norm(), published.rope(), published.mlp()
    types = published.layer_types(lambda i: bool(published.get("use_sliding_window")) and not rotates[i])
    layers = [
        pre_norm(published.attention(rope=rope if rotates[i] else None, window=published.window(types[i])), mlp, norm)
        for i in range(count)
    ]
    return Architecture(published.decoder(layers, norm))
