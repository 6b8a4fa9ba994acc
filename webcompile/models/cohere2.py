"""Command R7B and Aya Expanse: Cohere with windows; the layers without a window do not rotate."""

from __future__ import annotations

from typing import Any

from webcompile.models import Architecture
from webcompile.models.common.published import Published
from webcompile.nn.config import LayerConfig


def build(config: dict[str, Any]) -> Architecture:
    """Maps a Cohere2Config."""
    published = Published(
        config,
        layer_norm_eps=1e-5,
        logit_scale=0.0625,
        tie_word_embeddings=True,
        sliding_window=4096,
        sliding_window_pattern=4,
    )
    norm = published.layer_norm(bias=False)
    layers = [
        LayerConfig(
            published.attention(
                rope=published.rope(interleaved=True) if kind == "sliding_attention" else None,
                window=published.window(kind),
            ),
            published.mlp(),
            attention_norm=norm,
            parallel=True,
        )
        for kind in published.layer_types(lambda i: (i + 1) % published["sliding_window_pattern"] != 0)
    ]
    return Architecture(published.decoder(layers, norm, logit_scale=published["logit_scale"]))
