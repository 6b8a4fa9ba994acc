"""OLMo 3: OLMo 2 with a window in three of four layers."""

from __future__ import annotations

from typing import Any

from webcompile.kernels.rotate import HeadNorm
from webcompile.models import Architecture
from webcompile.models.common.published import Published
from webcompile.nn.config import LayerConfig


def build(config: dict[str, Any]) -> Architecture:
    """Maps an Olmo3Config."""
    published = Published(config, rms_norm_eps=1e-5, sliding_window=4096, rope_theta=5e5)
    norm = published.rms_norm()
    layers = [
        LayerConfig(
            published.attention(
                rope=published.rope(kind, otherwise={"rope_type": "default"} if kind == "sliding_attention" else {}),
                window=published.window(kind),
                head_norm=HeadNorm(norm, whole=True, shared=False),
            ),
            published.mlp(),
            attention_out_norm=norm,
            mlp_out_norm=norm,
        )
        for kind in published.layer_types(lambda i: (i + 1) % 4 != 0)
    ]
    return Architecture(published.decoder(layers, norm))
