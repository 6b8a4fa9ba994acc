"""Command R and Aya 23: attention and MLP side by side, neighbouring dimensions rotate, scaled logits."""

from __future__ import annotations

from typing import Any

from webcompile.kernels.rotate import HeadNorm
from webcompile.models import Architecture
from webcompile.models.common.published import Published
from webcompile.nn.config import LayerConfig


def build(config: dict[str, Any]) -> Architecture:
    """Maps a CohereConfig."""
    published = Published(config, layer_norm_eps=1e-5, rope_theta=5e5, logit_scale=0.0625, tie_word_embeddings=True)
    norm = published.layer_norm(bias=False)
    attention = published.attention(
        rope=published.rope(interleaved=True),
        head_norm=HeadNorm(norm, shared=False) if published.get("use_qk_norm") else None,
    )
    layer = LayerConfig(attention, published.mlp(), attention_norm=norm, parallel=True)
    return Architecture(published.decoder(layer, norm, logit_scale=published["logit_scale"]))
