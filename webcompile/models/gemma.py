"""Gemma 1: norms whose weights are offsets from one, scaled embeddings, GELU gates."""

from __future__ import annotations

from typing import Any

from webcompile.models import Architecture
from webcompile.models.common.published import Published, pre_norm


def build(config: dict[str, Any]) -> Architecture:
    """Maps a GemmaConfig."""
    published = Published(config, rms_norm_eps=1e-6, head_dim=256, hidden_act="gelu_pytorch_tanh", tie_word_embeddings=True)
    published.expect("use_bidirectional_attention", None, False)
    # Published as "gelu", trained with its approximation.
    activation = published.activation().removesuffix("_pytorch_tanh") + "_pytorch_tanh"
    norm, mlp = published.rms_norm(offset=1.0), published.mlp(activation=activation)
    layer = pre_norm(published.attention(), mlp, norm)
    return Architecture(published.decoder(layer, norm, embedding_scale=published["hidden_size"] ** 0.5, float32_only=True))
