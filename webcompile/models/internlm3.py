"""InternLM 3: Llama with two switches for biases."""

from __future__ import annotations

from typing import Any

from webcompile.models import Architecture
from webcompile.models.common.published import Published, pre_norm


def build(config: dict[str, Any]) -> Architecture:
    """Maps an InternLM3Config."""
    published = Published(config, rms_norm_eps=1e-5)
    norm, bias = published.rms_norm(), published.get("bias", False)
    attention = published.attention(qkv_bias=published.get("qkv_bias", bias), out_bias=bias)
    return Architecture(published.decoder(pre_norm(attention, published.mlp(up_bias=bias, down_bias=bias), norm), norm))
