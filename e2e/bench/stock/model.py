"""Llama as one would write it with TVM's own blocks: `relax.frontend.nn`, group-quantized products, TVM's paged KV cache.

It reads the weights of our artifact as they are: names, layout and tensor-cache.json are the field's.
"""

from __future__ import annotations

from typing import Any

from tvm import relax, te, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op, spec
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache, RopeMode, TIRPagedKVCache

CODES_PER_WORD, GROUP_SIZE, ZERO_CODE = 8, 32, 7
PREFILL_CHUNK_TOKENS = 1024
_OUT_EWISE_FUSABLE, _INJECTIVE = 4, 2
"""What TVM may fuse behind a function of two stages; it cannot tell by itself."""


def _dequantized(words: te.Tensor, scales: te.Tensor, row: Any, column: Any) -> Any:
    """Element of a matrix of 4-bit codes: words uint32 [rows, columns / 8], scales [rows, columns / 32]."""
    shift = tirx.Cast("uint32", (column % CODES_PER_WORD) * 4)
    code = (words[row, column // CODES_PER_WORD] >> shift) & tirx.const(15, "uint32")
    return (code.astype(scales.dtype) - tirx.const(ZERO_CODE, scales.dtype)) * scales[row, column // GROUP_SIZE]


class GroupQuantized(nn.Module):  # type: ignore[misc]
    """A matrix [rows, columns] of 4-bit codes with a scale per group of 32 columns."""

    def __init__(self, rows: int, columns: int, dtype: str) -> None:
        self.rows, self.columns = rows, columns
        self.q_weight = nn.Parameter((rows, columns // CODES_PER_WORD), "uint32")
        self.q_scale = nn.Parameter((rows, columns // GROUP_SIZE), dtype)

    def multiply(self, x: Tensor, out_dtype: str) -> Tensor:
        """x [1, s, columns] → [1, s, rows]: dequantization and product in one function, so that they are one kernel."""

        def dequantize_matmul(x: te.Tensor, words: te.Tensor, scales: te.Tensor) -> te.Tensor:
            weight = te.compute((self.rows, self.columns), lambda n, k: _dequantized(words, scales, n, k), name="dequantize")
            axis = te.reduce_axis((0, self.columns), name="k")
            return te.compute(
                (*x.shape[:-1], self.rows),
                lambda b, s, n: te.sum(x[b, s, axis].astype(out_dtype) * weight[n, axis].astype(out_dtype), axis=axis),
                name="NT_matmul",
            )

        arguments = [x, self.q_weight, self.q_scale]
        return op.tensor_expr_op(dequantize_matmul, "dequantize_matmul", arguments, attrs={"op_pattern": _OUT_EWISE_FUSABLE})

    def forward(self, x: Tensor) -> Tensor:
        """As `multiply`, in the dtype of x."""
        return self.multiply(x, x.dtype)

    def take(self, rows: Tensor) -> Tensor:
        """rows int32[s] → [s, columns]."""

        def dequantize_take(rows: te.Tensor, words: te.Tensor, scales: te.Tensor) -> te.Tensor:
            shape = (rows.shape[0], self.columns)
            return te.compute(shape, lambda i, k: _dequantized(words, scales, rows[i], k), name="dequantize_take")

        arguments = [rows, self.q_weight, self.q_scale]
        return op.tensor_expr_op(dequantize_take, "dequantize_take", arguments, attrs={"op_pattern": _INJECTIVE})


class Attention(nn.Module):  # type: ignore[misc]
    """Grouped-query attention over TVM's cache, which rotates and appends."""

    def __init__(self, config: dict[str, Any], dtype: str) -> None:
        self.num_heads, self.head_dim = config["num_attention_heads"], config["head_dim"]
        self.num_qkv_heads = self.num_heads + 2 * config["num_key_value_heads"]
        self.qkv_proj = GroupQuantized(self.num_qkv_heads * self.head_dim, config["hidden_size"], dtype)
        self.o_proj = GroupQuantized(config["hidden_size"], self.num_heads * self.head_dim, dtype)

    def forward(self, x: Tensor, cache: PagedKVCache, layer: int) -> Tensor:
        """[1, s, hidden] → [1, s, hidden]."""
        batch, tokens, _ = x.shape
        qkv = op.reshape(self.qkv_proj(x), (batch, tokens, self.num_qkv_heads, self.head_dim))
        attended = cache.attention_with_fused_qkv(layer, qkv, self.num_heads, sm_scale=self.head_dim**-0.5)
        return self.o_proj(op.reshape(attended, (batch, tokens, self.num_heads * self.head_dim)))


class MLP(nn.Module):  # type: ignore[misc]
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: dict[str, Any], dtype: str) -> None:
        self.gate_up_proj = GroupQuantized(2 * config["intermediate_size"], config["hidden_size"], dtype)
        self.down_proj = GroupQuantized(config["hidden_size"], config["intermediate_size"], dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[1, s, hidden] → [1, s, hidden]."""
        gate, up = op.split(self.gate_up_proj(x), 2, axis=-1)
        return self.down_proj(op.silu(gate) * up)


def _norm(config: dict[str, Any], dtype: str) -> nn.RMSNorm:
    return nn.RMSNorm(config["hidden_size"], -1, config["rms_norm_eps"], bias=False, dtype=dtype)


class Layer(nn.Module):  # type: ignore[misc]
    """Pre-norm attention and MLP."""

    def __init__(self, config: dict[str, Any], dtype: str) -> None:
        self.input_layernorm = _norm(config, dtype)
        self.self_attn = Attention(config, dtype)
        self.post_attention_layernorm = _norm(config, dtype)
        self.mlp = MLP(config, dtype)

    def forward(self, x: Tensor, cache: PagedKVCache, layer: int) -> Tensor:
        """[1, s, hidden] → [1, s, hidden]."""
        x = x + self.self_attn(self.input_layernorm(x), cache, layer)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):  # type: ignore[misc]
    """Layers between embedding and head."""

    def __init__(self, config: dict[str, Any], dtype: str) -> None:
        self.embed_tokens = GroupQuantized(config["vocab_size"], config["hidden_size"], dtype)
        self.layers = nn.ModuleList([Layer(config, dtype) for _ in range(config["num_hidden_layers"])])
        self.norm = _norm(config, dtype)

    def forward(self, x: Tensor, cache: PagedKVCache) -> Tensor:
        """[1, s, hidden] → [1, s, hidden], not yet normalized."""
        for number, layer in enumerate(self.layers):
            x = layer(x, cache, number)
        return x


class Llama(nn.Module):  # type: ignore[misc]
    """The functions that a chat program calls: embed, prefill, decode and the making of the cache."""

    def __init__(self, config: dict[str, Any], dtype: str, target: Any) -> None:
        """`config` as in `model_config` of mlc-chat-config.json; `dtype` of activations, scales and cache."""
        self.config, self.activation_dtype, self.target = config, dtype, target
        self.model = Decoder(config, dtype)
        if not config["tie_word_embeddings"]:
            self.lm_head = GroupQuantized(config["vocab_size"], config["hidden_size"], dtype)

    def embed(self, token_ids: Tensor) -> Tensor:
        """int32[s] → [s, hidden]."""
        return self.model.embed_tokens.take(token_ids)

    def prefill(self, x: Tensor, cache: PagedKVCache) -> tuple[Tensor, PagedKVCache]:
        """x [1, s, hidden] → logits float32[1, 1, vocab] after the last token."""

        def last(x: te.Tensor) -> te.Tensor:
            return te.compute((1, 1, x.shape[2]), lambda _, __, k: x[0, x.shape[1] - 1, k], name="last")

        return self._logits(op.tensor_expr_op(last, "last", [self.model(x, cache)])), cache

    def decode(self, x: Tensor, cache: PagedKVCache) -> tuple[Tensor, PagedKVCache]:
        """x [1, 1, hidden] → logits float32[1, 1, vocab]."""
        return self._logits(self.model(x, cache)), cache

    def _logits(self, x: Tensor) -> Tensor:
        head = self.model.embed_tokens if self.config["tie_word_embeddings"] else self.lm_head
        return head.multiply(self.model.norm(x), "float32")

    def create_cache(
        self,
        max_batch_size: tirx.Var,
        max_total_seq_len: tirx.Var,
        prefill_chunk_size: tirx.Var,
        page_size: tirx.Var,
        support_sliding_window: tirx.Var,
    ) -> PagedKVCache:
        """TVM's paged cache with its own kernels."""
        config = self.config
        return TIRPagedKVCache(
            attn_kind="mha",
            max_batch_size=max_batch_size,
            max_total_seq_len=max_total_seq_len,
            prefill_chunk_size=prefill_chunk_size,
            page_size=page_size,
            support_sliding_window=support_sliding_window,
            layer_partition=relax.ShapeExpr([0, config["num_hidden_layers"]]),
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=config["num_attention_heads"],
            num_key_value_heads=config["num_key_value_heads"],
            qk_head_dim=config["head_dim"],
            v_head_dim=config["head_dim"],
            mla_original_qk_head_dim=0,
            mla_original_v_head_dim=0,
            rope_mode=RopeMode.NORMAL,
            rope_scale=1,
            rope_theta=config["rope_theta"],
            rope_scaling=config["rope_scaling"] or {},
            rope_ext_factors=relax.prim_value(0),
            rotary_dim=config["head_dim"],
            enable_disaggregation=False,
            dtype=self.activation_dtype,
            target=self.target,
        )

    def export(self) -> tuple[Any, list[str]]:
        """The module, and the names of the parameters in the order of its functions' last argument."""
        packed = {"param_mode": "packed", "effect_mode": "none"}
        hidden, dtype = self.config["hidden_size"], self.activation_dtype

        def step(tokens: int | str) -> dict[str, Any]:
            cache = spec.Object(object_type=PagedKVCache)
            return {"x": spec.Tensor([1, tokens, hidden], dtype), "cache": cache, "$": packed}

        sizes = ("max_batch_size", "max_total_seq_len", "prefill_chunk_size", "page_size", "support_sliding_window")
        module, params = self.export_tvm(
            spec={
                "embed": {"token_ids": spec.Tensor(["seq_len"], "int32"), "$": packed},
                "prefill": step("seq_len"),
                "decode": step(1),
                "create_cache": {**dict.fromkeys(sizes, int), "$": {"param_mode": "none", "effect_mode": "none"}},
            }
        )
        return module, [name for name, _ in params]
