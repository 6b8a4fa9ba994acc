"""The shape of attention: heads, what they see, and the paged cache they read."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from webcompile.kernels.builder import Buffer, argument


@dataclass(frozen=True)
class Heads:
    """Query heads, shared key-value heads, and how many tokens a page of the cache holds.

    With a window, position i sees token j <= i when i - j < window or j < sinks (Xiao et al. 2023); without, all of them.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    page_tokens: int
    window: int | None = None
    sinks: int = 0

    @property
    def group(self) -> int:
        """Query heads that share a key-value head."""
        return self.num_heads // self.num_kv_heads

    def declare_cache(self, dtype: str) -> tuple[Buffer, Buffer]:
        """Declares the arguments page_table[pages] and cache[num_pages, 2, kv, page_tokens, d] of the open kernel."""
        page_table = argument("page_table", (tirx.Var("max_pages", "int64"),), "int32")
        pages = tirx.Var("num_pages", "int64")
        cache = argument("cache", (pages, 2, self.num_kv_heads, self.page_tokens, self.head_dim), dtype)
        return page_table, cache
