"""GPTBigCode: SantaCoder, StarCoder, WizardCoder. GPT-2 whose query heads share one key-value head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from webcompile.models import Architecture
from webcompile.models.common.published import Published, pre_norm
from webcompile.models.gpt2 import NAMES as GPT2_NAMES


def build(config: dict[str, Any]) -> Architecture:
    """Maps a GPTBigCodeConfig."""
    published = Published(
        config,
        layer_norm_epsilon=1e-5,
        hidden_act="gelu_pytorch_tanh",
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    published.expect("add_cross_attention", False)
    norm, mlp = published.layer_norm("layer_norm_epsilon"), published.plain_mlp(True)
    attention = published.attention(
        num_kv_heads=1 if published.get("multi_query", True) else published.num_heads,
        rope=None,
        qkv_bias=True,
        out_bias=True,
        scale=published.head_dim**-0.5 if published.get("scale_attn_weights", True) else 1.0,
    )
    decoder = published.decoder(pre_norm(attention, mlp, norm), norm, learned_positions=published["max_position_embeddings"])
    return Architecture(decoder, replace(GPT2_NAMES, transposed=False, grouped=True))
