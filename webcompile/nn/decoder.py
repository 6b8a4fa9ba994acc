"""The decoder-only transformer, assembled from blocks by a config. Attributes are named as Hugging Face names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from webcompile.contracts import SAMPLING_SETTINGS, TOP_LOGPROBS
from webcompile.kernels.attention import attention_decode, attention_prefill
from webcompile.kernels.epilogues import AddResidual, RopeAppend, Store, SwiGLU
from webcompile.kernels.heads import Heads
from webcompile.kernels.sampling import choose, logprobs, num_strips, penalize
from webcompile.kernels.trigonometry import fixed_point_turns
from webcompile.nn.context import Context
from webcompile.nn.linear import Embedding, Linear, Norm, call, call_inplace, is_one_token
from webcompile.nn.norm import RMSNorm


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_epsilon: float
    inverse_frequencies: tuple[float, ...]
    max_context_tokens: int
    tied_embeddings: bool
    attention_bias: bool = False
    mlp_bias: bool = False


@dataclass(frozen=True)
class Step:
    """The device tensors that say where a step stands: see contracts.MODEL_FUNCTIONS."""

    position: Tensor
    page_table: Tensor
    turns: Tensor


class Attention(nn.Module):  # type: ignore[misc]
    """Grouped-query self-attention over the paged cache."""

    def __init__(self, context: Context, config: DecoderConfig) -> None:
        self.context, self.config = context, config
        width = config.num_heads * config.head_dim
        self.qkv_proj = Linear(
            context, width + 2 * config.num_kv_heads * config.head_dim, config.hidden_size, config.attention_bias
        )
        self.o_proj = Linear(context, config.hidden_size, width, config.attention_bias)

    def forward(self, x: Tensor, norm: RMSNorm, cache: Tensor, step: Step) -> Tensor:
        """x + attention(norm(x)), both [s, hidden]; appends the s tokens to `cache`."""
        config, schedule, dtype = self.config, self.context.schedule, self.context.dtype
        heads = Heads(config.num_heads, config.num_kv_heads, config.head_dim, self.context.page_tokens)
        normalized, fused_norm = norm.before(x)
        project = self.qkv_proj.kernel(normalized, RopeAppend(heads, dtype), self.qkv_proj.bias, fused_norm)
        arguments = self.qkv_proj.arguments(normalized, self.qkv_proj.bias, fused_norm)
        arguments += [step.turns, step.position, step.page_table, cache]
        q_out = Tensor.placeholder([x.shape[0], config.num_heads, config.head_dim], dtype)
        cache, q = call_inplace(project, arguments, len(arguments) - 1, q_out)
        attend = attention_decode if is_one_token(x) else attention_prefill
        out = Tensor.placeholder([x.shape[0], config.num_heads * config.head_dim], dtype)
        kernel = attend(schedule, heads, dtype, config.head_dim**-0.5)
        attended = call(kernel, [q, step.position, step.page_table, cache], out)
        return self.o_proj(attended, residual=x)


class MLP(nn.Module):  # type: ignore[misc]
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, context: Context, config: DecoderConfig) -> None:
        self.dtype = context.dtype
        self.gate_up_proj = Linear(context, 2 * config.intermediate_size, config.hidden_size, config.mlp_bias)
        self.down_proj = Linear(context, config.hidden_size, config.intermediate_size, config.mlp_bias)

    def forward(self, x: Tensor, norm: RMSNorm) -> Tensor:
        """x + mlp(norm(x)), both [s, hidden]."""
        normalized, fused_norm = norm.before(x)
        gated = self.gate_up_proj(normalized, norm=fused_norm, epilogue=SwiGLU(self.dtype))
        return self.down_proj(gated, residual=x)


class DecoderLayer(nn.Module):  # type: ignore[misc]
    """Pre-norm attention and MLP."""

    def __init__(self, context: Context, config: DecoderConfig) -> None:
        self.input_layernorm = RMSNorm(context, config.hidden_size, config.norm_epsilon)
        self.self_attn = Attention(context, config)
        self.post_attention_layernorm = RMSNorm(context, config.hidden_size, config.norm_epsilon)
        self.mlp = MLP(context, config)

    def forward(self, x: Tensor, cache: Tensor, step: Step) -> Tensor:
        """x [s, hidden] → [s, hidden]."""
        x = self.self_attn(x, self.input_layernorm, cache, step)
        return self.mlp(x, self.post_attention_layernorm)


class Decoder(nn.Module):  # type: ignore[misc]
    """Embedding, layers, final norm."""

    def __init__(self, context: Context, config: DecoderConfig) -> None:
        self.embed_tokens = Embedding(context, config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([DecoderLayer(context, config) for _ in range(config.num_layers)])
        self.norm = RMSNorm(context, config.hidden_size, config.norm_epsilon)

    def forward(self, token_ids: Tensor, caches: list[Tensor], step: Step) -> Tensor:
        """token_ids int32[s] → hidden states [s, hidden], not yet normalized."""
        x = self.embed_tokens(token_ids)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, cache, step)
        return x


class CausalLM(nn.Module):  # type: ignore[misc]
    """The decoder with its language-model head: the compiled functions of contracts.MODEL_FUNCTIONS."""

    def __init__(self, context: Context, config: DecoderConfig) -> None:
        self.context, self.config = context, config
        self.model = Decoder(context, config)
        if not config.tied_embeddings:
            self.lm_head = Linear(context, config.vocab_size, config.hidden_size)

    def prefill(self, token_ids: Tensor, position: Tensor, page_table: Tensor, kv_cache: list[Tensor]) -> Tensor:
        """Logits float32[1, vocab] after the last of s tokens."""
        return self._run(token_ids, position, page_table, kv_cache)

    def decode(self, token_ids: Tensor, position: Tensor, page_table: Tensor, kv_cache: list[Tensor]) -> Tensor:
        """Logits float32[1, vocab] after one token."""
        return self._run(token_ids, position, page_table, kv_cache)

    def _run(self, token_ids: Tensor, position: Tensor, page_table: Tensor, kv_cache: list[Tensor]) -> Tensor:
        turns = Tensor.from_const(fixed_point_turns(self.config.inverse_frequencies))
        hidden = self.model(token_ids, kv_cache, Step(position, page_table, turns))
        last, fused_norm = self.model.norm.before_last(hidden)
        head = self.model.embed_tokens if self.config.tied_embeddings else self.lm_head
        return head.multiply(last, norm=fused_norm, epilogue=Store("float32"))

    def sample(self, logits: Tensor, bias: Tensor, counts: Tensor, settings: Tensor, state: list[Tensor]) -> Tensor:
        """The next token, int32[1]; moves the state (step, token, position) on."""
        schedule, vocab_size = self.context.schedule, self.config.vocab_size
        strips = num_strips(vocab_size)
        outs = [Tensor.placeholder(*of) for of in (([vocab_size], "float32"), ([strips], "float32"), ([strips], "int32"))]
        arguments = [logits, bias, counts, settings]
        scores, best, best_ids = op.tensor_ir_op(penalize(schedule, vocab_size), "penalize", arguments, outs)
        written = [counts, *state]
        _, _, token, _ = call_inplace(
            choose(schedule, vocab_size), [scores, best, best_ids, settings, *written], [4, 5, 6, 7]
        )
        return token

    def top_logprobs(self, logits: Tensor, token: Tensor) -> Tensor:
        """Ids and log probabilities of `token` and of the most likely tokens, float32[2, 1 + TOP_LOGPROBS]."""
        out = Tensor.placeholder([2, 1 + TOP_LOGPROBS], "float32")
        return call(logprobs(self.context.schedule, self.config.vocab_size), [logits, token], out)

    def probe(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        """What engines time to compare variants: a layer's MLP in decode, [1, hidden] → [1, hidden]; see `probe_params`."""
        mlp, epsilon, dtype = self.model.layers[0].mlp, self.config.norm_epsilon, self.context.dtype
        norm, *matrices = weights
        gate_up, down = mlp.gate_up_proj, mlp.down_proj
        split = len(gate_up.names)
        kernel = gate_up.kernel(x, SwiGLU(dtype), None, Norm(norm, epsilon))
        out = Tensor.placeholder([1, self.config.intermediate_size], dtype)
        gated = call(kernel, [x, *matrices[:split], norm], out)
        kernel = down.kernel(gated, AddResidual(dtype), None, None)
        return call(kernel, [gated, *matrices[split:], x], Tensor.placeholder([1, self.config.hidden_size], dtype))

    def probe_params(self) -> list[tuple[str, Tensor]]:
        """Name and tensor of each of the `weights` of `probe`; empty where it would need kernels that decode has not."""
        layer = self.model.layers[0]
        if self.config.mlp_bias or not self.context.schedule.gpu:
            return []
        matrices = (layer.mlp.gate_up_proj, layer.mlp.down_proj)
        weights = [(name, getattr(matrix, name)) for matrix in matrices for name in matrix.names]
        return [("norm", layer.post_attention_layernorm.weight), *weights]

    def specification(self) -> dict[str, Any]:
        """What `export_tvm` needs: the functions with their symbolic shapes."""
        config, spec = self.config, nn.spec
        cache = ["num_pages", 2, config.num_kv_heads, self.context.page_tokens, config.head_dim]
        caches = [spec.Tensor(cache, self.context.dtype) for _ in range(config.num_layers)]

        def function(tokens: int | str) -> dict[str, Any]:
            return {
                "token_ids": spec.Tensor([tokens], "int32"),
                "position": spec.Tensor([1], "int32"),
                "page_table": spec.Tensor(["max_pages"], "int32"),
                "kv_cache": caches,
                "$": {"param_mode": "packed", "effect_mode": "none"},
            }

        functions = {"prefill": function("s"), "decode": function(1)}
        if not self.context.schedule.gpu:
            return functions
        logits, one = spec.Tensor([1, config.vocab_size], "float32"), spec.Tensor([1], "int32")
        effects = {"$": {"param_mode": "none", "effect_mode": "none"}}
        sample = {
            "logits": logits,
            "bias": spec.Tensor([config.vocab_size], "float32"),
            "counts": spec.Tensor([config.vocab_size], "int32"),
            "settings": spec.Tensor([len(SAMPLING_SETTINGS)], "int32"),
            "state": [one] * 3,
        }
        functions |= {"sample": sample | effects, "top_logprobs": {"logits": logits, "token": one} | effects}
        if weights := [spec.Tensor([int(n) for n in of.shape], of.dtype) for _, of in self.probe_params()]:
            x = spec.Tensor([1, config.hidden_size], self.context.dtype)
            functions["probe"] = {"x": x, "weights": weights} | effects
        return functions
