"""Attention over the paged cache against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernel_benches import BENCHES, Bench, Paged, close, normal, unwritten
from webcompile.kernels.attention import attention_decode, attention_prefill
from webcompile.kernels.heads import Heads

HEADS = [Heads(6, 2, 10, 4), Heads(9, 3, 64, 16), Heads(5, 5, 12, 4)]
name_of_heads = "{0.num_heads}x{0.num_kv_heads}x{0.head_dim}".format


@pytest.mark.parametrize("bench", BENCHES)
@pytest.mark.parametrize("heads", HEADS, ids=name_of_heads)
@pytest.mark.parametrize(("tokens", "position"), [(7, 0), (7, 30), (1, 0), (1, 37)])
def test_attention(bench: Bench, heads: Heads, tokens: int, position: int) -> None:
    """Prefill; for one token decode, where position 0 leaves all threads of a head but one without work."""
    dtype, (h, kv, d) = bench.dtype, (heads.num_heads, heads.num_kv_heads, heads.head_dim)
    length, scale = position + tokens, 0.3
    q, keys = normal(tokens, h, d, dtype=dtype), normal(length, kv, d, dtype=dtype)
    values = keys[::-1, :, ::-1]
    paged = Paged(heads, length, dtype)
    paged.write(0, keys, values)
    kernel = (attention_decode if tokens == 1 else attention_prefill)(bench.schedule, heads, dtype, scale)
    out = unwritten(tokens, h * d, dtype=dtype)
    out = bench.run(kernel, q, np.array([position], np.int32), paged.page_table, paged.cache, out)[-1]

    scores = np.einsum("shd,thd->hst", q.astype(np.float64), np.repeat(keys, h // kv, 1)) * scale
    scores[:, np.arange(length) > position + np.arange(tokens)[:, None]] = -np.inf
    shares = np.exp(scores - scores.max(axis=2, keepdims=True))
    shares /= shares.sum(axis=2, keepdims=True)
    close(out, np.einsum("hst,thd->shd", shares, np.repeat(values, h // kv, 1)).reshape(tokens, -1), dtype)
