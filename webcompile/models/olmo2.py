"""OLMo 2: norms after attention and MLP, and of all queries and all keys together."""

from __future__ import annotations

from typing import Any

from webcompile.kernels.rotate import HeadNorm
from webcompile.models import Architecture
from webcompile.models.common.published import Published
from webcompile.nn.config import LayerConfig


def build(config: dict[str, Any]) -> Architecture:
    """Maps an Olmo2Config."""
    published = Published(config, rms_norm_eps=1e-5)
    norm = published.rms_norm()
    attention = published.attention(head_norm=HeadNorm(norm, whole=True, shared=False))
    layer = LayerConfig(attention, published.mlp(), attention_out_norm=norm, mlp_out_norm=norm)
    return Architecture(published.decoder(layer, norm))
